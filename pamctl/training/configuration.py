"""Which settings a run has: flags override the task's recipe and the base's LoRA defaults."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypedDict, get_args

from pamctl.alignment import Scope
from pamctl.models.trees import Remat
from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Recipe
from pamctl.training.epochs import steps_of
from pamctl.training.methods import AdapterKind, Method, Start, method_named
from pamctl.training.mixture import Mixing
from pamctl.training.replay import Replay, resolved_replay
from pamctl.training.terms import Term, resolved_terms, term_record

PutBack = Literal["global", "zero", "init"]
Moments = Literal["keep", "reset"]
EXPERTS = 8


class Settings(TypedDict, total=False):
    """What a caller may set; what is left out, or None, comes from the task's recipe and the base's defaults.

    Keys:
        method: a name in `pamctl.training.methods.METHODS`; `pam` by default.
        init: where the task adapter starts, if not where the method says.
        terms: added to the method's, or in place of those of the same name; see `pamctl.training.terms`.
        align: whether weights in conflict are put back, if not as the method says.
        replay: `off`, or how examples of the tasks before are trained on too; see `resolved_replay`.
        decay: of the slow adapter, if not the method's; 0 for none.
        adapter: kind of adapter, if not the method's.
        experts: of a first mixture of experts, which share the rank; 8 by default.
        mixing: of several tasks at once, see `pamctl.training.mixture`; `proportional` by default.
        top_p: percent of the global adapter's weights that are important, by magnitude; 50 by default.
        align_every: optimiser steps between two realignments, or below 1 a fraction of all steps.
        align_at_end: realign after the last step too.
        scope: over which weights the top percent is taken; `global` by default.
        reinit: what a weight in conflict is put back to: the `global` one, `zero`, or the one that it had at
            the start of the task (`init`); `global` by default.
        moments: what becomes of Adam's first moment where a weight is put back; `keep` by default.
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
    terms: Sequence[str]
    align: bool | None
    replay: str | None
    decay: float | None
    adapter: AdapterKind | None
    experts: int | None
    mixing: Mixing
    top_p: float
    align_every: float | None
    align_at_end: bool
    scope: Scope
    reinit: PutBack
    moments: Moments
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
    """PAM's settings (paper, Algorithm 1), and those that it leaves open."""

    top_p: float
    align_every: int
    scope: Scope
    reinit: PutBack
    align_at_end: bool = False
    moments: Moments = "keep"

    def is_due(self, step: int, steps: int) -> bool:
        """Whether weights are put back after this step (1-based) of so many."""
        return step % self.align_every == 0 or (self.align_at_end and step == steps)


@dataclass(frozen=True)
class Configuration:
    """Everything that decides the numbers of a run, resolved; it is saved with every checkpoint and adapter.

    Attributes:
        start: where the task adapter started from.
        alignment: None for a method that does not align.
        terms: by name, none of weight 0.
        replay: None for a method without.
        decay: of the slow adapter; 0 for none.
        experts: None for what is no mixture of them.
        scale: what the forward pass multiplies A B with: alpha / rank.
        label_smoothing: None where several tasks have their own.
        base, global_adapter, previous, data: SHA-256 fingerprints of the inputs.
        dtype, quantize: what the base is held in, and its matrices if that is less.
    """

    task: str
    method: str
    start: Start
    alignment: Alignment | None
    terms: tuple[tuple[str, Term], ...]
    replay: Replay | None
    decay: float
    adapter: AdapterKind
    experts: int | None
    rank: int
    alpha: float
    targets: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    label_smoothing: float | None
    clip: float
    accumulate: int
    remat: Remat
    seed: int
    base: str
    dtype: str
    quantize: str | None
    global_adapter: str | None
    previous: str | None
    data: str

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def to_json(self) -> dict[str, Any]:
        """One flat object, the alignment's settings among the others."""
        fields = asdict(self)
        alignment, fields["terms"] = fields.pop("alignment"), term_record(self.terms)
        return {**fields, **(alignment or {})}


def check_settings(settings: Settings) -> None:
    """Refuse a value out of its range and choices that exclude each other, before anything is read."""
    method_named(settings.get("method", "pam"))
    _one_of("--init", settings.get("init"), get_args(Start))
    _one_of("--scope", settings.get("scope"), get_args(Scope))
    _one_of("--reinit", settings.get("reinit"), get_args(PutBack))
    _one_of("--moments", settings.get("moments"), get_args(Moments))
    _one_of("--adapter", settings.get("adapter"), get_args(AdapterKind))
    _one_of("--mixing", settings.get("mixing"), get_args(Mixing))
    _one_of("--remat", settings.get("remat"), get_args(Remat))
    for option, key in (
        ("--experts", "experts"),
        ("--rank", "rank"),
        ("--batch-size", "batch_size"),
        ("--epochs", "epochs"),
        ("--steps", "steps"),
        ("--accumulate", "accumulate"),
        ("--fsdp", "fsdp"),
    ):
        _in_range(option, settings.get(key), 1, math.inf, "1 or more")
    _in_range("--ema", settings.get("decay"), 0, math.nextafter(1, 0), "from 0 to below 1")
    every = settings.get("align_every")
    if every is not None and not (0 < every < 1 or (every >= 1 and float(every).is_integer())):
        raise UsageRefusal(f"--align-every is {every:g}", "give steps, or a fraction of them below 1")
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


def resolve_method(settings: Settings, *, has_global: bool) -> Method:
    """Return the method of this run, with the axes that are set otherwise; without a global adapter, what is
    left of it for a first task.

    Raises:
        UsageRefusal: a choice that needs an adapter of the tasks before, or two that exclude each other.
    """
    method, init = method_named(settings.get("method", "pam")), settings.get("init")
    if has_global and not method.continues:
        raise UsageRefusal(f"{method.name} goes on from no adapter", "leave --global out")
    method = replace(method, **_axes(settings, method))
    if not has_global:
        if init not in (None, "fresh"):
            raise UsageRefusal(f"--init {init} needs --global", "name the adapter with --global")
        return method.first()
    _refuse_exclusive(method)
    return replace(method, start=init or method.start)


def _axes(settings: Settings, method: Method) -> dict[str, Any]:
    """The axes of a method that are set otherwise."""
    replay = resolved_replay(settings.get("replay"), replays=method.replays)
    chosen = {
        "terms": (*method.terms, *settings.get("terms", ())),
        "aligns": settings.get("align"),
        "replays": replay is not None,
        "decay": settings.get("decay"),
        "adapter": settings.get("adapter"),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _refuse_exclusive(method: Method) -> None:
    if method.adapter != "single" and method.aligns:
        raise UsageRefusal(
            f"--adapter {method.adapter} and alignment exclude each other: its factors are not those of the "
            "global adapter one by one",
            "add --no-align, or leave --adapter out",
        )
    names = [name for name, _ in resolved_terms(method.terms)]
    if method.adapter == "stack" and "l2" in names:
        raise UsageRefusal("--adapter stack and --term l2 exclude each other", "leave one of them out")
    if "orth" in names and method.adapter != "stack":
        raise UsageRefusal(
            "--term orth holds new factors against frozen ones", "add --adapter stack, or leave it out"
        )
    if "consistency" in names and not method.decay:
        raise UsageRefusal("--term consistency needs a slow adapter", "add --ema 0.25")


def resolve_alignment(settings: Settings, method: Method, recipe: Recipe, steps: int) -> Alignment | None:
    """Return the alignment's settings, None for a method without."""
    if not method.aligns:
        return None
    every = settings.get("align_every") or recipe.align_every
    return Alignment(
        top_p=float(settings.get("top_p", 50.0)),
        align_every=int(every) if every >= 1 else max(1, round(every * steps)),
        scope=settings.get("scope", "global"),
        reinit=settings.get("reinit", "global"),
        align_at_end=settings.get("align_at_end", False),
        moments=settings.get("moments", "keep"),
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
