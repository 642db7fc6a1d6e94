"""How tasks, a base and the adapters before become a run: what is adapted, from where, and held to what."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax

from pamctl.adapters import Adapter
from pamctl.models.base import Base
from pamctl.models.lora import adapts_vision, init_lora, lora_from_adapter
from pamctl.models.paligemma import Lora
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import Task
from pamctl.training.batches import EncodedSplit
from pamctl.training.configuration import (
    Configuration,
    Settings,
    check_settings,
    resolve_alignment,
    resolve_method,
)
from pamctl.training.inheritance import Inheritance
from pamctl.training.loop import Run
from pamctl.training.material import Material, encoded_splits, mixed, with_replay
from pamctl.training.methods import Method
from pamctl.training.realignment import Anchor, anchor_of
from pamctl.training.replay import resolved_replay
from pamctl.training.replay_buffer import ReplayBuffer
from pamctl.training.shape import Shape, resolve_shape
from pamctl.training.terms import resolved_terms


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
    _refuse_wrong_previous(method, before)
    shape, seed = resolve_shape(settings, base, state, method), settings.get("seed", 0)
    reference, start = _adapters(base, before, method, shape, seed)
    encoded = encoded_splits(tasks, base, encode, vision=adapts_vision(start))
    material = mixed(tasks, encoded, settings, seed, base)
    replay = resolved_replay(settings.get("replay"), replays=method.replays)
    buffer = before.buffer if replay else None
    if replay and buffer and buffer.kept:
        material = with_replay(material, buffer, replay, seed, base, opened)
    _refuse_odd_batches(material, base)
    configuration = Configuration(
        task="+".join(task.name for task in tasks),
        method=method.name,
        start=method.start,
        alignment=resolve_alignment(settings, method, tasks[0].recipe, material.recipe["steps"]),
        terms=resolved_terms(method.terms),
        replay=replay,
        decay=method.decay,
        adapter=method.adapter,
        **asdict(shape),
        seed=seed,
        base=base.fingerprint,
        global_adapter=None if state is None else state.fingerprint,
        previous=None if before.previous is None else before.previous.fingerprint,
        dtype=base.dtype,
        quantize=base.quantize,
        data=material.split.fingerprint,
        **material.recipe,
    )
    run = Run(
        base=base,
        split=material.split,
        configuration=configuration,
        order=material.order,
        start=start,
        anchor=_anchor(configuration, state, reference, start, base),
        reference=reference if configuration.terms or method.adapter == "stack" else {},
        slow=(reference or start) if method.decay else {},
    )
    known = (*(note for task in tasks for note in task.notes), *base.notes, *before.notes)
    if material.split.cut:
        known += (f"{material.split.cut} examples have a text that is cut at the task's text length",)
    return Prepared(run, tuple(tasks), before, (*known, *_notes(settings, configuration, buffer)))


def _adapters(base: Base, before: Inheritance, method: Method, shape: Shape, seed: int) -> tuple[Lora, Lora]:
    """The global adapter, {} for a first task, and the start of the task adapter, on the devices."""
    state, on_devices = before.global_adapter, partial(jax.device_put, device=base.devices.replicated)
    reference: Lora = {} if state is None else on_devices(lora_from_adapter(state, base.config))
    if method.start == "fresh":
        draw = _draw_of(seed, state)
        fresh = init_lora(base.config, shape.rank, shape.targets, draw, shape.experts)
        return reference, on_devices(fresh)
    newest = before.newest(fast=method.decay > 0) if method.start == "previous" else state
    if newest is None or newest is state:
        return reference, reference
    _refuse_other_shape(newest, state)
    return reference, on_devices(lora_from_adapter(newest, base.config))


def _anchor(
    config: Configuration, state: Adapter | None, reference: Lora, start: Lora, base: Base
) -> Anchor | None:
    if config.alignment is None or state is None:
        return None
    return anchor_of(state, reference, start, config.alignment, base.config)


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


def _refuse_wrong_previous(method: Method, before: Inheritance) -> None:
    """Refuse to take a merged adapter for the one that was trained, and one that would not be used."""
    state = before.global_adapter
    if before.previous is not None and not (method.start == "previous" or method.replays):
        raise UsageRefusal(f"--method {method.name} makes no use of --previous", "leave it out")
    merged = state is not None and state.provenance is not None and state.provenance.stage == "merged"
    if state is not None and merged and method.needs_previous and before.previous is None:
        wanted = "needs the examples kept beside" if method.replays else "goes on from"
        raise Refusal(
            f"{state.name} is merged, and --method {method.name} {wanted} what was trained before it",
            "name that with --previous",
        )


def _refuse_odd_batches(material: Material, base: Base) -> None:
    """Refuse batches that parts or devices cannot share evenly."""
    rows, parts = len(material.order(1)), material.recipe["accumulate"]
    if rows % parts:
        raise UsageRefusal(
            f"--accumulate {parts} does not divide the {rows} examples of a step, replayed ones among them",
            "give a number that does",
        )
    base.devices.local_rows(rows // parts)


def _draw_of(seed: int, state: Adapter | None) -> int:
    """The seed of fresh factors: another one in each task, or all tasks would start with the same A."""
    if state is None:
        return seed
    learned = len(state.provenance.tasks) if state.provenance else 0
    return seed + (max(learned, 1) << 32)


def _refuse_other_shape(previous: Adapter, state: Adapter | None) -> None:
    if state is not None and previous.shapes != state.shapes:
        raise Refusal(
            f"{previous.name} and {state.name} do not adapt the same modules with the same ranks",
            "name the global adapter and the one before of one sequence",
        )


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
