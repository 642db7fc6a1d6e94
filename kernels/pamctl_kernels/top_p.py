"""How many of n weights `top_p` percent are."""

import math
from fractions import Fraction


def important_count(top_p: object, n: int) -> int:
    """k = ceil(top_p / 100 * n), exact in the decimal text of `top_p`: 0.1 is one tenth, no double."""
    try:
        share = Fraction(str(top_p)) / 100
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"top_p is {top_p}: give a percentage from 0 to 100") from None
    if not 0 <= share <= 1:
        raise ValueError(f"top_p is {top_p}: give a percentage from 0 to 100")
    return math.ceil(share * n)
