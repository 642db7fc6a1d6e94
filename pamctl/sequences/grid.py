"""The grid of a sequence: orders x seeds x systems, as units of steps that may be worked on one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import cast

from pamctl.refusal import UsageRefusal
from pamctl.sequences.contents import SequenceFile, System
from pamctl.sequences.steps import DIAGNOSTICS, Diagnose, Merge, Prune, Score, Step, Train
from pamctl.training.configuration import Settings, resolve_method
from pamctl.training.methods import PLAIN, method_named

ZERO_SHOT = "zero-shot"
_OF_THE_METHOD = frozenset(
    "init terms align replay decay adapter experts mixing".split()
    + "top_p align_every align_at_end scope reinit moments".split()
)
"""Settings that make no difference to plain fine-tuning from fresh LoRA."""
_OF_A_FIRST_ADAPTER = ("rank", "alpha", "targets", "experts")
"""Settings that a later task has from the global adapter."""


@dataclass(frozen=True)
class Cell:
    """One system on one order with one seed."""

    order: str
    tasks: tuple[str, ...]
    seed: int
    system: System

    @property
    def place(self) -> str:
        return f"{self.order}/seed-{self.seed}"

    @property
    def folder(self) -> str:
        return f"{self.place}/{self.system.label}"


@dataclass(frozen=True)
class Unit:
    """Steps that are done one after the other, after other units.

    Attributes:
        name: of its folder.
        needs: the units that write what this one reads.
        cell: None for what several cells share.
    """

    name: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    cell: Cell | None = None


def cells_of(file: SequenceFile, only: Mapping[str, Sequence[str]] | None = None) -> list[Cell]:
    """The cells of a sequence in the order in which they are worked on.

    Args:
        only: for `order`, `seed` and `method` the values that are wanted; a method by its name or label.

    Raises:
        UsageRefusal: a value that the sequence does not have, or no cell is left.
    """
    only = only or {}
    _refuse_absent(file, only)
    cells = [
        Cell(order, tasks, seed, system)
        for order, tasks in file.orders.items()
        for seed in file.seeds
        for system in file.systems
        if (system.orders is None or order in system.orders)
        and (system.seeds is None or seed in system.seeds)
        and order in only.get("order", (order,))
        and str(seed) in only.get("seed", (str(seed),))
        and {system.method, system.label} & {*only.get("method", (system.method,))}
    ]
    if not cells:
        raise UsageRefusal(f"{file.place} has no such cell", "ask for less with --only")
    return cells


def units_of(file: SequenceFile, cells: Sequence[Cell], *, diagnose: bool = True) -> list[Unit]:
    """The units of some cells; each comes after those that it needs.

    Args:
        diagnose: with the steps that make diagnostics.jsonl, on which nothing else depends.
    """
    tasks = tuple(dict.fromkeys(name for cell in cells for name in cell.tasks))
    shared: dict[str, Unit] = {}
    units: list[Unit] = []
    for cell in cells:
        method = method_named(cell.system.method)
        make = _learned_in_turn if method.continues else _at_once if method.at_once else _alone
        unit, needed = make(file, cell)
        for each in needed:
            known = shared.setdefault(each.name, each)
            steps = known.steps + tuple(step for step in each.steps if step not in known.steps)
            shared[each.name] = replace(known, steps=steps)
        units.append(unit)
    every = [Unit(ZERO_SHOT, (Score(None, tasks),)), *shared.values(), *units]
    return every if diagnose else [_without_diagnostics(unit) for unit in every]


def _without_diagnostics(unit: Unit) -> Unit:
    kept = (
        step
        for step in unit.steps
        if not isinstance(step, Prune | Diagnose)
        and not (isinstance(step, Score) and step.file == DIAGNOSTICS)
    )
    return replace(unit, steps=tuple(kept))


def _learned_in_turn(file: SequenceFile, cell: Cell) -> tuple[Unit, list[Unit]]:
    """A cell in which one adapter learns task after task, and the first task if others share it."""
    first, is_shared = _first(file, cell)
    label = None if is_shared else cell.system.run
    begin: tuple[Step, ...] = (first, Score(first.out, cell.tasks[:2], cell.order, label))
    rest = tuple(_later(file, cell, first.out))
    if not is_shared:
        return Unit(cell.folder, begin + rest, cell=cell), []
    unit = Unit(first.out.rsplit("/", 2)[0], begin)
    return Unit(cell.folder, rest, (unit.name,), cell), [unit]


def _first(file: SequenceFile, cell: Cell) -> tuple[Train, bool]:
    """How the first task is learned, and whether it is what others may share: plain fine-tuning."""
    task = cell.tasks[0]
    settings = file.settings_of(cell.system, (task,))
    settings.pop("init", None)
    told: Settings = {**settings, "method": cell.system.method}
    method = resolve_method(told, has_global=False)
    if method != PLAIN:
        train = _training(cell, (task,), settings, f"{cell.folder}/1-{task}/trained")
        return train, False
    plain, common = map(plain_settings, (settings, file.settings_of(System("finetune"), (task,))))
    name = "first" if plain == common else f"first-{_digest(plain)}"
    out = f"{cell.place}/{name}/1-{task}/trained"
    return Train((task,), {"method": method.name, "seed": cell.seed, **plain}, out), True


def _later(file: SequenceFile, cell: Cell, first: str) -> Iterator[Step]:
    """The steps of every task after the first."""
    system, tasks = cell.system, cell.tasks
    score = partial(Score, order=cell.order, run=system.run)
    state = trained = first
    for t, task in enumerate(tasks[1:], start=1):
        settings = file.settings_of(system, (task,))
        method = resolve_method({**settings, "method": system.method}, has_global=True)
        by = system.merges_by(method)
        method = replace(method, merge=by)
        if method.adapter != "stack":
            settings = _without(settings, _OF_A_FIRST_ADAPTER)
        folder, before = f"{cell.folder}/{t + 1}-{task}", state
        previous = trained if method.needs_previous else None
        trained, pruned = f"{folder}/trained", None
        yield replace(_training(cell, (task,), settings, trained), before=before, previous=previous)
        state = trained
        if by is not None:
            pruned, state = f"{folder}/pruned", f"{folder}/merged"
            yield score(trained, (task,))
            yield Prune(trained, before, pruned)
            yield score(pruned, (task,), file=DIAGNOSTICS)
            yield Merge(before, trained, by, state)
        yield score(state, tasks[: t + 2])
        rule = (settings.get("top_p", 50.0), settings.get("scope", "global"))
        yield Diagnose(before, trained, state, pruned, *rule, (cell.order, cell.seed, system.label, task))


def _alone(file: SequenceFile, cell: Cell) -> tuple[Unit, list[Unit]]:
    """A cell in which each task is learned by itself, which is the same in every order."""
    system, name = cell.system, f"alone/seed-{cell.seed}/{cell.system.label}"
    trained = {task: f"{name}/{task}/trained" for task in cell.tasks}
    trainings = tuple(
        _training(cell, (task,), file.settings_of(system, (task,)), out) for task, out in trained.items()
    )
    scores = tuple(Score(out, (task,), cell.order, system.run) for task, out in trained.items())
    return Unit(cell.folder, scores, (name,), cell), [Unit(name, trainings)]


def _at_once(file: SequenceFile, cell: Cell) -> tuple[Unit, list[Unit]]:
    """A cell in which all tasks are learned at once."""
    out = f"{cell.folder}/all/trained"
    train = _training(cell, cell.tasks, file.settings_of(cell.system, cell.tasks), out)
    return Unit(cell.folder, (train, Score(out, cell.tasks, cell.order, cell.system.run)), cell=cell), []


def _training(cell: Cell, tasks: tuple[str, ...], settings: Settings, out: str) -> Train:
    return Train(tasks, {"method": cell.system.method, "seed": cell.seed, **settings}, out)


def plain_settings(settings: Settings) -> Settings:
    """Of some settings those that make a difference to plain fine-tuning from fresh LoRA."""
    return _without(settings, _OF_THE_METHOD)


def _without(settings: Settings, names: Sequence[str] | frozenset[str]) -> Settings:
    return cast(Settings, {name: value for name, value in settings.items() if name not in names})


def _digest(settings: Settings) -> str:
    return sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]


def _refuse_absent(file: SequenceFile, only: Mapping[str, Sequence[str]]) -> None:
    there = {
        "order": [*file.orders],
        "seed": [str(seed) for seed in file.seeds],
        "method": [name for system in file.systems for name in (system.method, system.label)],
    }
    for key, values in only.items():
        for value in values:
            if value not in there[key]:
                raise UsageRefusal(
                    f"--only {key}={value}: {file.place} has no such {key}",
                    f"it has: {', '.join(dict.fromkeys(there[key]))}",
                )
