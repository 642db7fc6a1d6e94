"""What pamctl says when it will not or cannot go on: the fault and where, then the way on."""


class Refusal(Exception):
    """A known failure, shown to the user as two lines and never as a traceback.

    Args:
        what: what is wrong and where: the file, tensor, line or option, with the value found.
        way_on: what to do now, as an instruction or a command that can be typed.
    """

    exit_code = 1

    def __init__(self, what: str, way_on: str) -> None:
        super().__init__(what)
        self.what = what
        self.way_on = way_on


class UsageRefusal(Refusal):
    """The command or call itself is wrong: an option value, a combination, a name."""

    exit_code = 2


class Preempted(Refusal):
    """Stopped from outside after saving a checkpoint; running again continues."""

    exit_code = 75
