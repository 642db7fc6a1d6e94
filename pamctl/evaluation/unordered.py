"""Which results belong to a method that learns no sequence: tasks apart, an adapter each, or all at once.

Tasks learned apart are put together from one adapter a task with the same method, run, order and seed. Which
tasks they are is asked of the sequences beside them, so that one set of adapters compares with sequences over
any part of its tasks. An order is only a label here: the scores are the same in every order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pamctl.evaluation.sequences import Chain, Labels, State
from pamctl.training.methods import METHODS


@dataclass(frozen=True)
class Unordered:
    """Tasks learned apart or at once.

    Attributes:
        answering: the state that answers each task; one that lacks was never evaluated.
    """

    labels: Labels
    tasks: tuple[str, ...]
    answering: Mapping[str, State]
    at_once: bool


def learns_no_sequence(state: State) -> bool:
    """Whether the state's method never goes on from an adapter."""
    method = METHODS.get(state.labels.method or "")
    return method is not None and not method.continues


def unordered_of(states: Sequence[State], chains: Sequence[Chain]) -> list[Unordered]:
    """What such states tell, over the sets of tasks of the sequences beside them."""
    at_once = [
        Unordered(state.labels, state.tasks, dict.fromkeys(state.tasks, state), at_once=True)
        for state in states
        if len(state.tasks) > 1
    ]
    beside = [(chain.labels.order, chain.last.tasks) for chain in chains]
    beside += [(one.labels.order, one.tasks) for one in at_once]
    apart = [
        Unordered(labels, tasks, {task: group[task] for task in tasks if task in group}, at_once=False)
        for labels, group in _groups(states)
        for tasks in _sets(tuple(group), labels.order, beside)
    ]
    return [*apart, *at_once]


def _groups(states: Sequence[State]) -> Iterator[tuple[Labels, dict[str, State]]]:
    """States that learned one task, by that task; a task that is there again begins another group."""
    groups: list[tuple[Labels, dict[str, State]]] = []
    for state in (state for state in states if len(state.tasks) == 1):
        (task,) = state.tasks
        found = next((g for labels, g in groups if labels == state.labels and task not in g), None)
        if found is None:
            groups.append((state.labels, found := {}))
        found[task] = state
    yield from groups


def _sets(
    learned: tuple[str, ...], order: str | None, beside: Sequence[tuple[str | None, tuple[str, ...]]]
) -> list[tuple[str, ...]]:
    """The sets of tasks to compare over: those beside that were learned whole, else the least larger one."""
    named = [tasks for label, tasks in beside if order in (None, label)] or [tasks for _, tasks in beside]
    sets = {frozenset(tasks): tasks for tasks in reversed(named)}
    whole = [tasks for tasks in sets.values() if set(tasks) <= set(learned)]
    if set().union(*whole) == set(learned):
        return whole
    larger = [tasks for tasks in sets.values() if set(tasks) > set(learned)]
    return [*whole, min(larger, key=len, default=learned)]
