"""The shape of a run's factors: that of the global adapter, or of flags and the base's defaults."""

import re
from dataclasses import dataclass

from pamctl.adapters import Adapter
from pamctl.models.base import Base
from pamctl.models.lora import chosen
from pamctl.refusal import Refusal
from pamctl.training.configuration import EXPERTS, Settings
from pamctl.training.methods import Method


@dataclass(frozen=True)
class Shape:
    """What is adapted, and how wide.

    Attributes:
        targets: regex over canonical module ids.
        experts: that share the rank; None for what is no mixture of them.
    """

    rank: int
    alpha: float
    targets: str
    experts: int | None


def resolve_shape(settings: Settings, base: Base, state: Adapter | None, method: Method) -> Shape:
    """Return the shape of the factors that a method trains after the state `state`.

    Raises:
        Refusal: the adapter is of another base, has several ranks, or another shape than settings say.
    """
    rank, alpha, targets = _lora_settings(settings, base, state, method)
    return Shape(rank, alpha, targets, _experts(settings, state, method))


def _lora_settings(
    settings: Settings, base: Base, global_adapter: Adapter | None, method: Method
) -> tuple[int, float, str]:
    """Rank, alpha and targets: the global adapter's, or else of flags and the base's defaults."""
    defaults = base.lora_defaults
    targets = settings.get("targets") or defaults.targets
    if global_adapter is not None:
        _refuse_other_base(global_adapter, base)
        explicit = bool(settings.get("targets"))
        targets = _targets_of(global_adapter, base, targets, explicit=explicit)
    if global_adapter is None or method.adapter == "stack":
        rank, alpha = settings.get("rank") or defaults.rank, settings.get("alpha")
        # A rank of one's own keeps the base's alpha / rank, so that the rate need not be tuned again.
        return rank, alpha or defaults.alpha * rank / defaults.rank, targets
    rank = _uniform_rank(global_adapter)
    for option, found, wanted in (
        ("rank", settings.get("rank"), rank),
        ("alpha", settings.get("alpha"), rank),
    ):
        if found is not None and found != wanted:
            raise Refusal(
                f"--{option} is {found}, {global_adapter.name} has {option} {wanted}",
                f"leave --{option} out: a task adapter has the shape of the global adapter",
            )
    return rank, float(rank), targets


def _refuse_other_base(adapter: Adapter, base: Base) -> None:
    if adapter.base_fingerprint not in (None, base.fingerprint):
        raise Refusal(
            f"{adapter.name} was trained on {adapter.base_model} ({str(adapter.base_fingerprint)[:12]}), "
            f"the base is {base.name} ({base.fingerprint[:12]})",
            "name the base it was trained on with --base",
        )


def _uniform_rank(adapter: Adapter) -> int:
    ranks = {shape.rank: module for module, shape in adapter.shapes.items()}
    if len(ranks) > 1:
        (low, module), *_, (high, other) = sorted(ranks.items())
        raise Refusal(
            f"{adapter.name} has rank {low} in {module} and {high} in {other}",
            "start from an adapter with one rank: `pamctl merge` writes such ones",
        )
    return adapter.rank


def _targets_of(adapter: Adapter, base: Base, targets: str, *, explicit: bool) -> str:
    """A regex for the modules of an adapter: `targets` if it picks them, else refused or spelled out."""
    adapted = set(adapter.shapes)
    picked = {module for kind in chosen(base.config, targets) for module in kind.modules()}
    if picked == adapted:
        return targets
    if explicit:
        module = min(picked ^ adapted)
        here, there = ("picks", "does not adapt") if module in picked else ("does not pick", "adapts")
        raise Refusal(
            f"--targets {targets!r} {here} {module}, which {adapter.name} {there}",
            "leave --targets out: a task adapter has the shape of the global adapter",
        )
    return "|".join(re.escape(module) for module in sorted(adapted))


def _experts(settings: Settings, state: Adapter | None, method: Method) -> int | None:
    """How many experts share the rank; None for what is no mixture of them."""
    found = None if state is None else state.experts
    if method.adapter != "moe":
        if state is not None and found:
            raise Refusal(
                f"{state.name} is a mixture of {found} experts, and {method.name} trains plain LoRA",
                "go on with --method moelora",
            )
        return None
    if state is not None and not found:
        raise Refusal(
            f"{state.name} has no experts for --adapter moe to go on with",
            "start from a first task that was trained with --adapter moe",
        )
    asked = settings.get("experts")
    if found and asked not in (None, found):
        raise Refusal(f"--experts is {asked}, {state and state.name} has {found}", "leave --experts out")
    return found or asked or EXPERTS
