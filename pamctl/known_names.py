"""What is said of a name that is not known: the nearest that is, and all that are."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from pamctl.refusal import UsageRefusal


def refuse_unknown(keys: Iterable[str], known: Sequence[str], place: str) -> None:
    """Refuse a name that may not stand at a place, with the nearest that may."""
    for key in keys:
        if key not in known:
            way_on = f"{meant(key, known)}known are: {', '.join(known)}"
            raise UsageRefusal(f"{place}: {key} is not known", way_on)


def meant(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant, as a way on begins; empty if none is near."""
    nearest = get_close_matches(name, [*known], n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""
