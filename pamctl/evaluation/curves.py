"""Training curves: the loss of one training by step, thinned to what a figure can show."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple, cast

FIRST = "first task"
"""What a plain first task is called in place of a system: many systems go on from it."""
LARGEST = 1e100
"""More than any loss that float32 holds, and so little that sums of it stay numbers."""
LAST_STEP = 2**53
POINTS = 60
"""Most points that a curve keeps."""
_ALONE, _FIRST = "alone", "first"
"""The folders of a run in which tasks are learned apart, and first tasks that several systems share."""


@dataclass(frozen=True)
class Curve:
    """The loss of one training.

    Attributes:
        system: as the report names it, or `FIRST`.
        order: None where it is not known, or the task was learned apart from the others.
        task: that was learned; several, joined by +, where they were learned at once.
        steps: the last optimiser step of each point.
        loss: the mean over the steps of each point, terms included.
    """

    system: str
    order: str | None
    seed: int | None
    task: str
    steps: tuple[int, ...]
    loss: tuple[float, ...]


class Place(NamedTuple):
    """Where in a run something was trained: system as its folder labels it, order and seed."""

    system: str
    order: str | None
    seed: int


def place_in_run(log: PurePath) -> Place:
    """The place of a log from its path in the folder of a run: ORDER/seed-N/SYSTEM/T-TASK/trained/..."""
    order, seed, system = log.parts[:3]
    first = system == _FIRST or system.startswith(f"{_FIRST}-")
    return Place(FIRST if first else system, None if order == _ALONE else order, int(seed.split("-")[1]))


def refuse_broken(event: Mapping[str, Any]) -> None:
    """Raise ValueError that names the field of an event of a training which is not what it should be."""
    if "event" not in event:
        raise ValueError("`event` is missing")
    kinds: dict[str, type] = {"step": int, "task": str, "method": str, "seed": int}
    for name, kind in kinds.items():
        if name in event and type(event[name]) is not kind:
            raise ValueError(f"`{name}` is {event[name]!r}")
    if not 0 <= event.get("step", 0) <= LAST_STEP:
        raise ValueError(f"`step` is {event['step']}")
    if event["event"] == "step" and not _is_loss(event.get("loss")):
        raise ValueError(f"`loss` is {event.get('loss')!r}")


def _is_loss(value: object) -> bool:
    return type(value) in (int, float) and -LARGEST <= cast(float, value) <= LARGEST


def curves_of(events: Iterable[Mapping[str, Any]], place: Place | None = None) -> Iterator[Curve]:
    """The curves that the events of one or more trainings make.

    Args:
        place: of the training; None takes what its `start` event tells.

    Raises:
        KeyError, TypeError, ValueError: the events are not those of a training.
    """
    begun: Mapping[str, Any] | None = None
    steps: list[Mapping[str, Any]] = []
    for event in events:
        if event["event"] == "start":
            if begun is not None and steps:
                yield _curve(begun, steps, place)
            begun, steps = event, []
        elif event["event"] == "step":
            steps.append(event)
    if steps:
        yield _curve(begun or {}, steps, place)


def _curve(begun: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], place: Place | None) -> Curve:
    system, order, seed = place or _told(begun)
    points = thinned([step["step"] for step in steps], [float(step["loss"]) for step in steps])
    return Curve(system, order, seed, str(begun["task"]), *points)


def _told(begun: Mapping[str, Any]) -> tuple[str, None, int]:
    plain = begun["method"] == "finetune" and begun["global_adapter"] is None
    return (FIRST if plain else str(begun["method"]), None, int(begun["seed"]))


def thinned(
    steps: Sequence[int], loss: Sequence[float], most: int = POINTS
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """At most so many points of a curve, each the mean over steps that follow one another."""
    size = -(-len(steps) // most) or 1
    groups = range(0, len(steps), size)
    ends = tuple(steps[min(start + size, len(steps)) - 1] for start in groups)
    return ends, tuple(_mean(loss[start : start + size]) for start in groups)


def _mean(values: Sequence[float]) -> float:
    return float(f"{sum(values) / len(values):.6g}")


@dataclass(frozen=True)
class MeanCurve:
    """The mean of n curves of one system on one task, over orders and seeds, at the same steps."""

    system: str
    task: str
    steps: tuple[int, ...]
    loss: tuple[float, ...]
    n: int


def mean_curves(curves: Iterable[Curve]) -> list[MeanCurve]:
    """The mean curve of each system on each task, in the order in which they come.

    Where trainings of one task differ in length, those of the commonest length count, the longest of these.
    """
    groups: dict[tuple[str, str], dict[tuple[int, ...], list[tuple[float, ...]]]] = {}
    for curve in curves:
        groups.setdefault((curve.system, curve.task), {}).setdefault(curve.steps, []).append(curve.loss)
    found = []
    for (system, task), lengths in groups.items():
        steps, losses = max(lengths.items(), key=lambda item: (len(item[1]), item[0][-1]))
        means = tuple(_mean(point) for point in zip(*losses, strict=True))
        found.append(MeanCurve(system, task, steps, means, len(losses)))
    return found
