"""Whether a method works on factors or on deltas, and why."""

from collections.abc import Sequence

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import repeated, share_a_start
from pamctl.merging.methods.method import Method, Settings, Space
from pamctl.refusal import Refusal, UsageRefusal

SMALL_ERROR = 0.01
"""The cross-term error up to which merging factors is as good as merging deltas."""


def decided_without_numbers(
    method: Method,
    settings: Settings,
    asked: str,
    adapters: Sequence[Adapter],
    mismatch: str | None,
    *,
    equal_weights: bool,
    keeps_rank: bool,
) -> tuple[Space, str] | None:
    """The space and why it is taken; None where the cross-term error has to be known.

    Args:
        mismatch: why the factors do not fit element by element.
        equal_weights: whether the weights are shares, or all 1.
        keeps_rank: whether the rank of factors is one that was asked for, or none was.

    Raises:
        Refusal: factors are asked for and do not fit.
        UsageRefusal: the method, or its variant, does not work in the space that is asked for.
    """
    spaces = method.spaces_of_variants.get(settings.get("variant", ""), method.spaces)
    if asked != "auto" and asked not in spaces:
        raise UsageRefusal(f"{method.name} does not work in {asked} space", f"use --space {spaces[0]}")
    if "factor" not in spaces:
        return "delta", "asked for" if asked == "delta" else f"{method.name} works on deltas"
    if "delta" not in spaces:
        asked = "factor"
    if asked == "delta":
        return "delta", "asked for"
    if mismatch is not None:
        if asked == "factor":
            raise Refusal(f"the factors cannot be merged: {mismatch}", "use --space delta")
        return "delta", f"the factors do not fit: {mismatch}"
    if asked == "factor":
        return "factor", "asked for"
    if not keeps_rank:
        return "delta", "another rank is asked for"
    if not (method.idempotent and equal_weights and _is_unscaled(settings)):
        return "delta", f"{method.name} of factors is not {method.name} of deltas"
    if len(repeated(adapters)) == len(adapters) - 1:
        return "factor", "the adapters are equal"
    if share_a_start(adapters):
        return "factor", "the adapters share their start, by their records"
    return None


def decided_by_error(error: float | None) -> tuple[Space, str]:
    """The space where no record decides: factors as long as that is about right."""
    if error is not None and error <= SMALL_ERROR:
        return "factor", f"the cross-term error is at most {100 * SMALL_ERROR:g} %"
    return "delta", "no shared start is recorded, and merged factors would be off by the cross-term error"


def _is_unscaled(settings: Settings) -> bool:
    return all(settings.get(name, 1.0) in (1.0, None) for name in ("lambda", "alpha"))
