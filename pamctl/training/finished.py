"""How a trained run becomes an adapter on disk: its factors, its record, and what the next task needs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from pamctl import __version__
from pamctl.adapters import Adapter, save_adapter
from pamctl.adapters.provenance import BaseModel, Parent, Provenance
from pamctl.adapters.sources import ADAPTER_FILES
from pamctl.alignment import compare_signs
from pamctl.models.lora import lora_to_adapter, routers_of
from pamctl.models.paligemma import Lora
from pamctl.tasks.task import Task
from pamctl.training.loop import State
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import Prepared
from pamctl.training.replay_buffer import ReplayBuffer, buffer_after, write_buffer
from pamctl.training.slow_adapter import FAST
from pamctl.training.stacking import stacked
from pamctl.whole_output import whole_folder


@dataclass(frozen=True)
class Finished:
    """What a run leaves.

    Attributes:
        adapter: the one that is evaluated, merged and gone on from.
        fast: the one that was trained, where `adapter` is its moving average.
        buffer: examples for the tasks to come to replay; None for a method without.
    """

    adapter: Adapter
    fast: Adapter | None = None
    buffer: ReplayBuffer | None = None


def finished(prepared: Prepared, state: State, name: str) -> Finished:
    """Return the trained adapter with its provenance, and what the next task needs beside it.

    Args:
        name: of the adapter.
    """
    config = prepared.run.configuration
    buffer = None
    if config.replay is not None:
        buffer = prepared.before.buffer
        for task in prepared.tasks:
            smoothing = _smoothing_of(prepared, task)
            buffer = buffer_after(buffer, task, config.replay, config.seed, smoothing)
    fast = finished_adapter(prepared, state.lora, name)
    if not config.decay:
        return Finished(fast, buffer=buffer)
    return Finished(finished_adapter(prepared, state.slow, name), fast, buffer)


def finished_adapter(prepared: Prepared, lora: Lora, name: str) -> Adapter:
    """Return trained factors as an adapter with its provenance."""
    run, before = prepared.run, prepared.before.global_adapter
    config, base = run.configuration, run.base
    scale = config.scale
    if run.how["stack"]:
        lora, scale = stacked(run.reference, _scaled(lora, scale), 1.0), 1.0
    learned = before.provenance.tasks if before is not None and before.provenance else ()
    provenance = Provenance(
        kind="trained",
        stage="trained",
        tasks=(*learned, *(task.name for task in prepared.tasks)),
        parents=_parents(prepared),
        base=BaseModel(base.name, base.fingerprint),
        method=config.method,
        parameters=config.to_json(),
        seed=config.seed,
        versions={"pamctl": __version__, "jax": version("jax"), "optax": version("optax")},
    )
    modules, routers = lora_to_adapter(lora, scale, base.config), routers_of(lora, base.config)
    factors = Adapter(modules, name=name, routers=routers)
    told = replace(provenance, conflicts=_conflicts(factors, prepared))
    return Adapter(modules, told, base.name, name, routers=routers)


def write_finished(
    done: Finished,
    prepared: Prepared,
    log: MetricsLog,
    out: Path,
    opened: Callable[[str], Task],
    *,
    force: bool = False,
) -> None:
    """Write an adapter, its metrics.jsonl and what the next task needs, complete or not at all.

    Args:
        opened: gives the task of a name or path.
    """
    with whole_folder(out, force=force, known=ADAPTER_FILES.__contains__) as draft:
        save_adapter(done.adapter, draft)
        log.write_to(draft)
        if done.fast is not None:
            (draft / FAST).mkdir()
            save_adapter(done.fast, draft / FAST)
        replay = prepared.run.configuration.replay
        if done.buffer is not None and replay is not None:
            write_buffer(done.buffer, draft, out, replay, opened)


def _parents(prepared: Prepared) -> tuple[Parent, ...]:
    """The adapter that the factors started from; merging relies on it."""
    state, config = prepared.before.global_adapter, prepared.run.configuration
    if state is None or config.start == "fresh":
        return ()
    started_from = prepared.before.previous if config.start == "previous" else None
    return ((started_from or state).as_parent(),)


def _smoothing_of(prepared: Prepared, task: Task) -> float:
    known = prepared.run.configuration.label_smoothing
    return task.recipe.label_smoothing if known is None else known


def _scaled(lora: Lora, scale: float) -> Lora:
    """The factors with the scale in B."""
    scaled: Lora = jax.tree.map_with_path(
        lambda path, leaf: leaf * scale if path[-1].key == "b" else leaf, lora
    )
    return scaled


def _conflicts(adapter: Adapter, prepared: Prepared) -> dict[str, Any] | None:
    """The signs of the finished adapter against the global one, by the method's own top_p and scope."""
    state = prepared.before.global_adapter
    if state is None or adapter.routers or adapter.shapes != state.shapes:
        return None
    rule = prepared.run.configuration.alignment
    if rule is None:
        _, report = compare_signs(adapter, state)
    else:
        _, report = compare_signs(adapter, state, rule.top_p, rule.scope)
    return {
        "overall": report.overall.to_json(),
        **{name: of.to_json() for name, of in report.factors.items()},
    }
