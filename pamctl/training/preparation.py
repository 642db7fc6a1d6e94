"""How tasks, a base and the adapters before become a run: what is adapted, from where, and held to what."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from pamctl.adapters import Adapter
from pamctl.models.base import Base
from pamctl.models.lora import adapts_vision, chosen, init_lora, lora_from_adapter
from pamctl.models.paligemma import Lora
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import Task
from pamctl.training.batches import EncodedSplit, Indices, encode_split, joined
from pamctl.training.configuration import (
    EXPERTS,
    Configuration,
    Settings,
    check_settings,
    resolve_alignment,
    resolve_method,
    resolve_recipe,
)
from pamctl.training.epochs import batch_indices
from pamctl.training.inheritance import Inheritance
from pamctl.training.loop import Run
from pamctl.training.methods import Method
from pamctl.training.mixture import mixed_indices, visits_of
from pamctl.training.realignment import anchor_of
from pamctl.training.replay import Replay, resolved_replay
from pamctl.training.replay_buffer import ReplayBuffer
from pamctl.training.terms import resolved_terms

TRAIN = "train"


@dataclass(frozen=True)
class Prepared:
    """A run and where it comes from.

    Attributes:
        notes: what the user should know before trusting the result.
    """

    run: Run
    tasks: tuple[Task, ...]
    before: Inheritance
    notes: tuple[str, ...]


def prepare(
    tasks: Sequence[Task],
    base: Base,
    before: Inheritance,
    settings: Settings,
    encode: Callable[[Task], EncodedSplit] | None = None,
    opened: Callable[[str], Task] = open_task,
) -> Prepared:
    """Resolve every setting, read and check every input, and put the start on the device.

    Args:
        tasks: one, or several for a method that learns them at once.
        encode: gives a task's training split as `encode_split` does with the vision tower frozen, for several
            runs to share; passed over where the adapter changes what the tower sees.
        opened: gives the task of a name or path, for examples that are replayed.

    Raises:
        Refusal: an example cannot be used, or an adapter is of another base, rank or other modules.
        UsageRefusal: a setting is out of range, two of them exclude each other, or devices do not divide the
            batch.
    """
    check_settings(settings)
    state = before.global_adapter
    method = resolve_method(settings, has_global=state is not None)
    refuse_several(tasks, method)
    _refuse_same_name(tasks)
    rank, alpha, targets = _lora_settings(settings, base, state, method)
    experts = _experts(settings, state, method)
    seed = settings.get("seed", 0)
    on_devices = partial(jax.device_put, device=base.devices.replicated)
    reference: Lora = {} if state is None else on_devices(lora_from_adapter(state, base.config))
    if method.start == "fresh":
        start = on_devices(init_lora(base.config, rank, targets, _draw_of(seed, state), experts))
    elif method.start == "previous" and before.newest is not state and before.newest is not None:
        _refuse_other_shape(before.newest, state)
        start = on_devices(lora_from_adapter(before.newest, base.config))
    else:
        start = reference
    vision = adapts_vision(start)
    encoded = [_encoded(task, base, encode, vision=vision) for task in tasks]
    if len(tasks) > 1 and not all(split.features_given for split in encoded):
        encoded = [_encoded(task, base, encode, vision=True) for task in tasks]
    recipe, split, order = _mixed(tasks, encoded, settings, seed, base)
    replay = resolved_replay(settings.get("replay"), replays=method.replays)
    buffer = before.buffer if replay else None
    if replay and buffer and buffer.kept:
        split, order = _with_replay(split, order, buffer, replay, recipe, seed, base, opened)
    rows = len(order(1))
    if rows % recipe["accumulate"]:
        raise UsageRefusal(
            f"--accumulate {recipe['accumulate']} does not divide the {rows} examples of a step, "
            "replayed ones among them",
            "give a number that does",
        )
    base.devices.local_rows(rows // recipe["accumulate"])
    alignment = resolve_alignment(settings, method, tasks[0].recipe, recipe["steps"])
    terms = resolved_terms(method.terms)
    configuration = Configuration(
        task="+".join(task.name for task in tasks),
        method=method.name,
        start=method.start,
        alignment=alignment,
        terms=terms,
        replay=replay,
        decay=method.decay,
        adapter=method.adapter,
        experts=experts,
        rank=rank,
        alpha=alpha,
        targets=targets,
        seed=seed,
        base=base.fingerprint,
        global_adapter=None if state is None else state.fingerprint,
        previous=None if before.previous is None else before.previous.fingerprint,
        dtype=base.dtype,
        quantize=base.quantize,
        data=split.fingerprint,
        **recipe,
    )
    anchor = None
    if alignment is not None and state is not None:
        anchor = anchor_of(state, reference, start, alignment, base.config)
    run = Run(
        base=base,
        split=split,
        configuration=configuration,
        order=order,
        start=start,
        anchor=anchor,
        reference=reference if terms or method.adapter == "stack" else {},
        slow=(reference or start) if method.decay else {},
    )
    notes = (note for task in tasks for note in task.notes)
    return Prepared(
        run,
        tuple(tasks),
        before,
        (*notes, *base.notes, *before.notes, *_notes(settings, configuration, buffer)),
    )


def refuse_several(tasks: Sequence[Any], method: Method) -> None:
    """Refuse several tasks for a method that learns one after the other."""
    if len(tasks) > 1 and not method.at_once:
        raise UsageRefusal(
            f"{len(tasks)} tasks are given, and --method {method.name} learns one at a time",
            "give one task, or --method multitask to learn them at once",
        )


def _refuse_same_name(tasks: Sequence[Task]) -> None:
    """Refuse two tasks of one name: records and replay tell tasks apart by it."""
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UsageRefusal(f"two tasks are called {name}", "give each once, or rename one of them")


def _encoded(
    task: Task, base: Base, encode: Callable[[Task], EncodedSplit] | None, *, vision: bool
) -> EncodedSplit:
    if not vision and encode is not None:
        return encode(task)
    return encode_split(base, task.split(TRAIN), task.text_length, vision_adapted=vision)


def _mixed(
    tasks: Sequence[Task], encoded: Sequence[EncodedSplit], settings: Settings, seed: int, base: Base
) -> tuple[dict[str, Any], EncodedSplit, Callable[[int], Indices]]:
    """The recipe, the examples, and which of them a step sees, of one task or of several at once."""
    recipes = [
        resolve_recipe(settings, task.recipe, len(split)) for task, split in zip(tasks, encoded, strict=True)
    ]
    recipe = recipes[0]
    smoothing = [of["label_smoothing"] for of in recipes]
    split = joined(
        [of.smoothed(each) for of, each in zip(encoded, smoothing, strict=True)], base.config.pad_token_id
    )
    if len(tasks) == 1:
        return recipe, split, partial(batch_indices, len(split), recipe["batch_size"], seed)
    for name in recipe.keys() - {"steps", "label_smoothing"}:
        values = {task.name: of[name] for task, of in zip(tasks, recipes, strict=True)}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{value} for {task}" for task, value in values.items())
            option = {"learning_rate": "--lr"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageRefusal(
                f"the tasks have several values of {option}: {told}", f"give one with {option}"
            )
    alone = [of["steps"] * of["batch_size"] for of in recipes]
    if settings.get("steps") is not None:
        alone = [len(of) for of in encoded]
    visits = visits_of(alone, settings.get("mixing", "proportional"))
    steps = settings.get("steps") or -(-sum(visits) // recipe["batch_size"])
    same = smoothing[0] if len(set(smoothing)) == 1 else None
    sizes = tuple(len(of) for of in encoded)
    return (
        {**recipe, "steps": steps, "label_smoothing": same},
        split,
        partial(mixed_indices, sizes, visits, recipe["batch_size"], seed),
    )


def _with_replay(
    split: EncodedSplit,
    order: Callable[[int], Indices],
    buffer: ReplayBuffer,
    replay: Replay,
    recipe: Mapping[str, Any],
    seed: int,
    base: Base,
    opened: Callable[[str], Task],
) -> tuple[EncodedSplit, Callable[[int], Indices]]:
    """The new examples and the kept ones behind them, and batches that have rows of both."""
    longest = max(of.text_length for of in buffer.kept)
    kept = encode_split(base, buffer.examples(opened), longest, vision_adapted=not split.features_given)
    kept = replace(kept, smoothing=np.array([of.label_smoothing for of in buffer.kept], np.float32))
    fresh, size, batch = len(split), len(kept), replay.batch or recipe["batch_size"]

    def both(step: int) -> Indices:
        return np.concatenate([order(step), fresh + batch_indices(size, batch, seed, step)])

    return joined([split, kept], base.config.pad_token_id), both


def _draw_of(seed: int, state: Adapter | None) -> int:
    """The seed of fresh factors: another one in each task, or all tasks would start with the same A."""
    if state is None:
        return seed
    learned = len(state.provenance.tasks) if state.provenance else 0
    return seed + (max(learned, 1) << 32)


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


def _refuse_other_shape(previous: Adapter, state: Adapter | None) -> None:
    if state is not None and previous.shapes != state.shapes:
        raise Refusal(
            f"{previous.name} and {state.name} do not adapt the same modules with the same ranks",
            "name the global adapter and the one before of one sequence",
        )


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


def _notes(settings: Settings, config: Configuration, buffer: ReplayBuffer | None) -> list[str]:
    asked, notes = settings.get("method", "pam"), []
    if asked != config.method:
        notes.append(
            f"no --global adapter: this is a first task, so {asked} is plain fine-tuning from fresh LoRA"
        )
    alignment = config.alignment
    if alignment is not None and config.steps < alignment.align_every and not alignment.align_at_end:
        notes.append(
            f"{config.steps} steps are fewer than --align-every {alignment.align_every}: nothing is "
            f"realigned, so {config.method} is what it is without alignment"
        )
    if alignment is not None and config.start == "fresh" and alignment.reinit == "global":
        notes.append("fresh LoRA has B = 0, so the first realignment copies B's important global weights")
    if config.replay and config.global_adapter and not (buffer and buffer.kept):
        notes.append("no examples of the tasks before were kept: nothing is replayed in this task")
    return notes
