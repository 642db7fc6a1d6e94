"""Working through units, each after those that it needs; one that fails does not keep others from theirs."""

from collections.abc import Callable, Sequence

from pamctl.refusal import Preempted, Refusal
from pamctl.sequences.grid import Unit

Failures = dict[str, Refusal]
"""Why units were not done, by their names."""


def work_through(
    units: Sequence[Unit], do: Callable[[Unit], None], on_failure: Callable[[Unit, Refusal], None]
) -> Failures:
    """Do units in their order.

    Args:
        on_failure: told each unit that cannot be done, and why, when it is known.

    Raises:
        Preempted: stopped by SIGTERM.
    """
    failures: Failures = {}
    for unit in units:
        refusal = lacking(unit, failures)
        if refusal is None:
            try:
                do(unit)
            except Preempted:
                raise
            except Refusal as fault:
                refusal = fault
        if refusal is not None:
            failures[unit.name] = refusal
            on_failure(unit, refusal)
    return failures


def lacking(unit: Unit, failures: Failures) -> Refusal | None:
    """Why a unit cannot be done, if one that it needs failed."""
    for name in unit.needs:
        if name in failures:
            return Refusal(f"{name}, which it needs, failed", "run again when that is mended")
    return None
