"""Where task adapters contradict the global one: the share of conflicts by layer, over the stages of a run.

A *conflict* is an important weight of the global adapter (the largest top_p percent) whose sign the task
adapter contradicts once it is trained, before merging. Counts are summed over modules of a layer and over the
stages of a system before they are divided, so that each weight counts the same.
"""

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

SCHEMA = "pamctl.diagnostics/1"
FACTORS = ("a", "b")
COUNTS = ("weights", "differ", "important", "conflicts")
_counts = operator.itemgetter(*COUNTS)
NOTHING = (0,) * len(COUNTS)
_PARTS = ("vision", "multi_modal_projector")
"""Of the model, before the rest of it."""
_LAYER = re.compile(r"(?:.*\.)?layers\.\d+(?=\.)")

Place = tuple[str, str]
"""A layer, and a factor."""
Counts = tuple[int, ...]
"""One number for each of `COUNTS`."""


@dataclass(frozen=True)
class Diagnosis:
    """The sign counts of one stage.

    Attributes:
        system: as its run labels it.
        top_p: by which important weights were told apart, in percent.
        counts: of each place.
    """

    order: str
    seed: int
    system: str
    task: str
    top_p: float
    counts: Mapping[Place, Counts]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Diagnosis | None":
        """None where the adapters of the stage were not compared; raises ValueError that names the field."""
        conflicts = _field(record, "conflicts", (dict, type(None)))
        if conflicts is None:
            return None
        counts: dict[Place, Counts] = {}
        try:
            for module, factors in conflicts["important"]["modules"].items():
                layer = layer_of(module)
                for factor in FACTORS:
                    place = layer, factor
                    counts[place] = _sum(counts.get(place, NOTHING), _counted(factors[factor]))
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise ValueError("`conflicts` does not count the signs of each module") from fault
        top_p = _field(record, "top_p", (int, float))
        if not 0 <= top_p <= 100:
            raise ValueError(f"`top_p` is {top_p} percent")
        return cls(
            order=_field(record, "order", (str,)),
            seed=_field(record, "seed", (int,)),
            system=_field(record, "system", (str,)),
            task=_field(record, "task", (str,)),
            top_p=float(top_p),
            counts=counts,
        )


@dataclass(frozen=True)
class LayerConflicts:
    """The share of conflicts in each layer, over all stages of one system.

    Attributes:
        system: as the report names it.
        layers: names of the layers, in the order of the model.
        conflicts: of factor `a` and of `b`, for each layer the percent of important weights in conflict; None
            where no weight is important.
        differ: the same of all weights: the percent whose sign differs.
        n: number of stages.
    """

    system: str
    layers: tuple[str, ...]
    conflicts: Mapping[str, tuple[float | None, ...]] = field(hash=False)
    differ: Mapping[str, tuple[float | None, ...]] = field(hash=False)
    n: int


def conflicts_of(system: str, stages: Iterable[Diagnosis]) -> LayerConflicts:
    """The shares of one system over some of its stages."""
    found = list(stages)
    sums: dict[Place, Counts] = {}
    for stage in found:
        for place, counts in stage.counts.items():
            sums[place] = _sum(sums.get(place, NOTHING), counts)
    layers = by_depth(layer for layer, _ in sums)
    return LayerConflicts(
        system,
        layers,
        {factor: _percents(sums, layers, factor, "conflicts", "important") for factor in FACTORS},
        {factor: _percents(sums, layers, factor, "differ", "weights") for factor in FACTORS},
        len(found),
    )


@cache
def layer_of(module: str) -> str:
    """The layer that a module is in, such as `language_model.layers.3`; the module itself if in none."""
    found = _LAYER.match(module)
    return found.group() if found else module


def by_depth(layers: Iterable[str]) -> tuple[str, ...]:
    """Layers, each once, from the input of the model to its output."""
    return tuple(sorted(set(layers), key=_depth))


def _percents(
    sums: Mapping[Place, Counts], layers: Iterable[str], factor: str, part: str, whole: str
) -> tuple[float | None, ...]:
    some, of = COUNTS.index(part), COUNTS.index(whole)
    pairs = [(sums[layer, factor][some], sums[layer, factor][of]) for layer in layers]
    return tuple(100 * some / all_of_them if all_of_them else None for some, all_of_them in pairs)


def _counted(found: Mapping[str, Any]) -> Counts:
    """The counts of one factor of a module; raises ValueError where they are no counts."""
    weights, differ, important, conflicts = counts = _counts(found)
    whole = type(weights) is type(differ) is type(important) is type(conflicts) is int
    if not whole or not 0 <= conflicts <= important <= weights or not conflicts <= differ <= weights:
        raise ValueError(counts)
    return counts


def _sum(some: Counts, more: Counts) -> Counts:
    return tuple(map(operator.add, some, more))


def _depth(layer: str) -> tuple[int, list[tuple[int, int | str]]]:
    """Sorts the vision tower before the projector and that before the language model, layer 9 before 10."""
    part = next((place for place, name in enumerate(_PARTS) if layer.startswith(name)), len(_PARTS))
    words = re.split(r"(\d+)", layer)
    return part, [(0, int(word)) if word.isdigit() else (1, word) for word in words]


def _field(record: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    value = record.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"`{name}` is {value!r}")
    return value
