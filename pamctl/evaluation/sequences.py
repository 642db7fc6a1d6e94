"""Which results belong to one sequence: tasks learned one after another by one method with one seed.

A *state* is an adapter that was evaluated, known by its fingerprint where the results tell it and else by its
labels. The state after task t is the `merged` one where there is one and else the `trained` one, so for a
method that never merges the trained adapter is the state and A_m equals A_t. A sequence is followed backwards
from its last state: to a state with one task less among the adapter's parents, or else with the same method,
run, order and seed. It is named by how its tasks were trained and merged: a method merged as its row in
`METHODS` says keeps its name (`tall+pam` merged by `tall`), `finetune` merged by `ties` is `ties`, anything
else is `trained+merged`. First tasks are mostly recorded as `finetune` and name nothing. Where several
methods train the very same adapter, each that fits the merging has a sequence of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pamctl.evaluation.results import Result
from pamctl.training.methods import METHODS


class Labels(NamedTuple):
    """What tells two sequences of the same tasks apart."""

    method: str | None = None
    run: str | None = None
    order: str | None = None
    seed: int | None = None


@dataclass
class State:
    """One evaluated adapter, or the base: its place in a sequence, and its result on each task."""

    stage: str
    tasks: tuple[str, ...]
    labels: Labels
    adapter: str | None
    parents: frozenset[str]
    cells: dict[str, Result] = field(default_factory=dict)


class Step(NamedTuple):
    """The states of a task before and after merging: the same if none was merged, None if not evaluated."""

    before: State | None
    after: State | None


@dataclass
class Chain:
    """A sequence: its last state, and one step a task."""

    last: State
    steps: list[Step]

    @property
    def labels(self) -> Labels:
        """Method, run, order and seed; a merged adapter that tells none takes them from the trained one."""
        before, after = self.steps[-1].before, self.last.labels
        if before is None or before is self.last:
            return after
        run, order = after.run or before.labels.run, after.order or before.labels.order
        seed = before.labels.seed if after.seed is None else after.seed
        return Labels(_method(before.labels.method, after.method), run, order, seed)


def states_of(results: Iterable[Result], notes: list[str]) -> list[State]:
    """The states that some results score; what does not compare is added to the notes."""
    states: dict[object, State] = {}
    scored_on: dict[str, Result] = {}
    for result in results:
        base = result.stage == "base"
        labels = Labels() if base else Labels(result.method, result.run, result.order, result.seed)
        adapter = result.base if base else result.adapter
        state = states.setdefault(
            (result.stage, result.tasks, labels, adapter),
            State(result.stage, result.tasks, labels, adapter, frozenset(result.parents)),
        )
        _note_examples(scored_on.setdefault(result.task, result), result, notes)
        before = state.cells.get(result.task)
        if before and before.score != result.score:
            notes.append(
                f"{result.task} has two scores for one {result.stage} adapter: {before.score:.2f} "
                f"(n = {before.n}) and {result.score:.2f} (n = {result.n}); the larger n counts, "
                "and the later of two that are equal"
            )
        if not before or result.n >= before.n:
            state.cells[result.task] = result
    return list(states.values())


def _note_examples(first: Result, result: Result, notes: list[str]) -> None:
    same = (first.n, first.metric, first.examples) == (result.n, result.metric, result.examples)
    note = f"{result.task} is not scored on the same examples everywhere: these scores do not compare"
    if not same and note not in notes:
        notes.append(note)


def chains_of(states: list[State]) -> list[Chain]:
    """The sequences that some states tell of: longest first, what was merged before what was not."""
    alike: dict[tuple[str, ...], list[State]] = {}
    for state in states:
        alike.setdefault(state.tasks, []).append(state)
    chains: list[Chain] = []
    through: dict[tuple[str, ...], list[Chain]] = {}
    """The chains that have learned some tasks on their way."""
    for last in sorted(states, key=lambda state: (-len(state.tasks), state.stage)):
        if any(_tells(known, last, alike) for known in through.get(last.tasks, ())):
            continue
        for trained in _trained_to(last, alike[last.tasks]):
            chains.append(chain := _chain(alike, last, trained))
            for count in range(1, len(last.tasks) + 1):
                through.setdefault(last.tasks[:count], []).append(chain)
    return chains


def _trained_to(last: State, fits: Sequence[State]) -> Sequence[State | None]:
    """The states before a last one was merged: one for each method that trains it to be merged so."""
    if last.stage != "merged":
        return [last]
    merge = last.labels.method
    found = _find(fits, ("trained",), last.parents, last.labels)
    if found is None:
        return [None]
    others = [state for state in fits if state.stage == "trained" and _agree(state.labels, last.labels)]
    same = [found, *(state for state in others if state is not found and _same(state, found))]
    least = min(_strangeness(state.labels.method, merge) for state in same)
    named: dict[object, State] = {}
    for state in same:
        if _strangeness(state.labels.method, merge) == least:
            named.setdefault((_method(state.labels.method, merge), state.labels.seed), state)
    return [*named.values()]


def _chain(alike: Mapping[tuple[str, ...], Sequence[State]], last: State, trained: State | None) -> Chain:
    """The sequence that ends in a state; `alike` has the states that learned the same tasks.

    Args:
        trained: the state before the last merge, the last one itself where nothing was merged.
    """
    steps = []
    own = (trained or last).labels
    after: State | None = last
    parents = last.parents
    for count in range(len(last.tasks), 0, -1):
        fits = alike.get(last.tasks[:count], ())
        if count < len(last.tasks):
            after = _find(fits, ("merged", "trained"), parents, last.labels)
            parents = after.parents if after else frozenset()
        before = trained if after is last else after
        if after and after is not last and after.stage == "merged":
            before = _find(fits, ("trained",), after.parents, own)
        if _is_merged(after):
            parents |= before.parents if before else frozenset()
        steps.append(Step(before, after))
    return Chain(last, steps[::-1])


def _find(
    states: Sequence[State], stages: tuple[str, ...], parents: frozenset[str], labels: Labels
) -> State | None:
    """The one that is a parent, or has the labels, or best both; merged before trained."""
    fits = [state for state in states if state.stage in stages]
    related = [state for state in fits if state.adapter in parents]
    alike = [state for state in fits if state.labels == labels]
    begun = [state for state in fits if len(state.tasks) == 1 and _begins(state.labels, labels)]
    agreed = [state for state in related if _agree(state.labels, labels)]
    best = [state for state in related if state in alike] or agreed or related or alike or begun
    return min(best, key=lambda state: stages.index(state.stage), default=None)


def _agree(one: Labels, other: Labels) -> bool:
    """Whether run and order are the same; merged adapters may tell no seed."""
    return (one.run, one.order) == (other.run, other.order) and (
        None in (one.seed, other.seed) or one.seed == other.seed
    )


def _begins(first: Labels, labels: Labels) -> bool:
    """Whether labels are those that a first task has, which many methods and runs share."""
    method = METHODS.get(labels.method or "")
    return method is not None and first in (
        labels._replace(method=method.first().name, run=run) for run in (labels.run, None)
    )


def _tells(known: Chain, last: State, alike: Mapping[tuple[str, ...], Sequence[State]]) -> bool:
    """Whether a known sequence tells all that the one which ends in a state would tell.

    One that ends before a merge is told by the sequence that merged it, except a chain of trained states only
    that is as long and whose method never merges: sequential fine-tuning, the chain that MagMax merges, is a
    method of its own.
    """
    count = len(last.tasks)
    goes_on = count < len(known.steps)
    before, after = known.steps[count - 1]
    if last is after or (goes_on and _same(last, after)):
        return True
    if not _same(last, before):
        return False
    merges = _merge_of(last.labels.method) is not None and _is_merged(after)
    named_alike = known.labels == last.labels or merges
    return goes_on or named_alike or any(_is_merged(step.after) for step in _chain(alike, last, last).steps)


def _is_merged(state: State | None) -> bool:
    return state is not None and state.stage == "merged"


def _same(one: State, other: State | None) -> bool:
    """Whether two states are one adapter, which may be scored under the names of several methods."""
    return other is not None and (
        one is other or (one.adapter is not None and (one.adapter, one.tasks) == (other.adapter, other.tasks))
    )


def _merge_of(method: str | None) -> str | None:
    """The merge method of a row of `METHODS`; None where it merges nothing, or there is no such row."""
    row = METHODS.get(method or "")
    return str(row.merge["method"]) if row and row.merge else None


def _strangeness(trained: str | None, merged: str | None) -> int:
    """0 for merging as the method's row in `METHODS` says, 1 for what gets its merging's name, else 2."""
    if _merge_of(trained) == merged:
        return 0
    return 1 if _method(trained, merged) == merged else 2


def _method(trained: str | None, merged: str | None) -> str | None:
    if merged is not None and _merge_of(trained) == merged:
        return trained
    return merged if trained in (None, merged, "finetune") else f"{trained}+{merged}"
