"""Which settings a run has: flags override the task's recipe and the base's LoRA defaults."""

import math
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, get_args

from pamctl.alignment import Reinit, Scope
from pamctl.models.trees import Remat
from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Recipe
from pamctl.training.epochs import steps_of
from pamctl.training.methods import FIRST_TASK, Method, Start, method_named


class Settings(TypedDict, total=False):
    """What a caller may set; what is left out, or None, comes from the task's recipe and the base's defaults.

    Keys:
        method: a name in `pamctl.training.methods.METHODS`; `pam` by default.
        init: where the task adapter starts, if not where the method says.
        top_p: percent of the global adapter's weights that are important, by magnitude; 50 by default.
        align_every: optimiser steps between two realignments.
        scope: over which weights the top percent is taken; `global` by default.
        reinit: what a weight in conflict is put back to; `global` by default.
        rank, alpha, targets: of a first adapter; `targets` is a regex over canonical module ids. With a
            global adapter they are that adapter's.
        steps, epochs: one of the two.
        learning_rate, batch_size, weight_decay, label_smoothing: as in `Recipe`.
        accumulate: parts of a batch that are worked on one after the other, to save memory; 1 by default.
        remat: what of each layer is computed again for the gradient, see `pamctl.models.trees.Remat`.
        dtype: of the base in memory, f32, f16 or bf16; the base's own by default.
        quantize: `nf4` holds the matrices of the base's layers in four bits; None by default.
        fsdp: over how many devices the base is sharded; by default over as few as it fits on.
        seed: of the initial factors and of the order of examples; 0 by default.
    """

    method: str
    init: Start | None
    top_p: float
    align_every: int | None
    scope: Scope
    reinit: Reinit
    rank: int | None
    alpha: float | None
    targets: str | None
    learning_rate: float | None
    batch_size: int | None
    epochs: int | None
    steps: int | None
    weight_decay: float | None
    label_smoothing: float | None
    accumulate: int
    remat: Remat
    dtype: str | None
    quantize: str | None
    fsdp: int | None
    seed: int


@dataclass(frozen=True)
class Alignment:
    """PAM's settings (paper, Algorithm 1)."""

    top_p: float
    align_every: int
    scope: Scope
    reinit: Reinit


@dataclass(frozen=True)
class Configuration:
    """Everything that decides the numbers of a run, resolved; it is saved with every checkpoint and adapter.

    Attributes:
        start: where the task adapter started from.
        alignment: None for a method that does not align.
        scale: what the forward pass multiplies A B with: alpha / rank.
        base, global_adapter, data: SHA-256 fingerprints of the inputs.
        dtype, quantize: what the base is held in, and its matrices if that is less.
    """

    task: str
    method: str
    start: Start
    alignment: Alignment | None
    rank: int
    alpha: float
    targets: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    label_smoothing: float
    clip: float
    accumulate: int
    remat: Remat
    seed: int
    base: str
    dtype: str
    quantize: str | None
    global_adapter: str | None
    data: str

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def to_json(self) -> dict[str, Any]:
        """One flat object, the alignment's settings among the others."""
        fields = asdict(self)
        alignment = fields.pop("alignment")
        return {**fields, **(alignment or {})}


def check_settings(settings: Settings) -> None:
    """Refuse a value out of its range and choices that exclude each other, before anything is read."""
    method_named(settings.get("method", "pam"))
    _one_of("--init", settings.get("init"), get_args(Start))
    _one_of("--scope", settings.get("scope"), get_args(Scope))
    _one_of("--reinit", settings.get("reinit"), get_args(Reinit))
    _one_of("--remat", settings.get("remat"), get_args(Remat))
    for option, key in (
        ("--align-every", "align_every"),
        ("--rank", "rank"),
        ("--batch-size", "batch_size"),
        ("--epochs", "epochs"),
        ("--steps", "steps"),
        ("--accumulate", "accumulate"),
        ("--fsdp", "fsdp"),
    ):
        _in_range(option, settings.get(key), 1, math.inf, "1 or more")
    _in_range("--top-p", settings.get("top_p"), 0, 100, "from 0 to 100")
    _in_range("--seed", settings.get("seed"), 0, 2**32 - 1, "from 0 to 4294967295")
    _in_range("--weight-decay", settings.get("weight_decay"), 0, math.inf, "0 or more")
    _in_range(
        "--label-smoothing", settings.get("label_smoothing"), 0, math.nextafter(1, 0), "from 0 to below 1"
    )
    for option, key in (("--lr", "learning_rate"), ("--alpha", "alpha")):
        _in_range(option, settings.get(key), math.nextafter(0, 1), math.inf, "above 0")
    if settings.get("steps") is not None and settings.get("epochs") is not None:
        raise UsageRefusal("--steps and --epochs say the same thing twice", "give one of them")


def resolve_method(settings: Settings, *, has_global: bool) -> tuple[Method, Start]:
    """Return the method of this run and where it starts; without a global adapter, that of a first task."""
    method, init = method_named(settings.get("method", "pam")), settings.get("init")
    if not has_global:
        if init not in (None, "fresh"):
            raise UsageRefusal(f"--init {init} needs --global", "name the adapter with --global")
        return FIRST_TASK, "fresh"
    if init == "previous" and method.start == "global":
        raise UsageRefusal(
            f"{method.name} keeps no adapter of the task before, so --init previous has none to start from",
            "use --init global or --init fresh",
        )
    return method, init or method.start


def resolve_alignment(settings: Settings, method: Method, recipe: Recipe) -> Alignment | None:
    """Return the alignment's settings, None for a method without."""
    if not method.aligns:
        return None
    return Alignment(
        top_p=float(settings.get("top_p", 50.0)),
        align_every=settings.get("align_every") or recipe.align_every,
        scope=settings.get("scope", "global"),
        reinit=settings.get("reinit", "global"),
    )


def resolve_recipe(settings: Settings, recipe: Recipe, examples: int) -> dict[str, Any]:
    """Return the optimiser's settings: a flag where there is one, else the recipe's value."""
    chosen = {
        name: _first(settings.get(name), getattr(recipe, name))
        for name in ("batch_size", "learning_rate", "weight_decay", "label_smoothing", "warmup", "clip")
    }
    epochs, steps = settings.get("epochs"), settings.get("steps")
    if epochs is None and steps is None:
        epochs, steps = recipe.epochs, recipe.steps
    if steps is None:
        steps = steps_of(epochs or 1, examples, chosen["batch_size"])
    accumulate = settings.get("accumulate", 1)
    if chosen["batch_size"] % accumulate:
        raise UsageRefusal(
            f"--accumulate {accumulate} does not divide the batch size {chosen['batch_size']}",
            "give a number that does",
        )
    return {**chosen, "steps": steps, "accumulate": accumulate, "remat": settings.get("remat", "elementwise")}


def _first(flag: Any, default: Any) -> Any:
    return default if flag is None else flag


def _one_of(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageRefusal(f"{option} is {value!r}", f"use one of: {', '.join(allowed)}")


def _in_range(option: str, value: Any, low: float, high: float, words: str) -> None:
    if value is not None and not (low <= value <= high and value != math.inf):
        raise UsageRefusal(f"{option} is {value}", f"give a number {words}")
