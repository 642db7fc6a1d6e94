"""What an accuracy matrix is: the scores of one sequence after each of its tasks, and what it lacks.

Methods that learn no sequence have the last row alone: the scores once every task is learned.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from pamctl.evaluation.counted import counted
from pamctl.evaluation.metrics import (
    FWT,
    FWT_VARIANTS,
    METRICS,
    forgetting,
    forgetting_from_best,
    forward_transfers,
    identity_gap,
    metrics_of,
)
from pamctl.evaluation.results import Result
from pamctl.evaluation.sequences import Chain, State, chains_of, states_of
from pamctl.evaluation.unordered import Unordered, learns_no_sequence, unordered_of
from pamctl.refusal import Refusal

Kind = Literal["sequence", "apart", "at once"]
DEFINED: Mapping[Kind, tuple[str, ...]] = {
    "sequence": tuple(METRICS),
    "apart": ("ACC", "A_t", "A_m"),
    "at once": ("ACC",),
}
"""The metrics that exist for tasks learned one after another, apart with an adapter each, or all at once."""
ROUNDING = 1e-7


@dataclass(frozen=True)
class Missing:
    """Cells that a metric needs and no result fills: the scores of one state on some tasks."""

    state: str
    fingerprint: str | None
    tasks: tuple[str, ...]

    def command(self, results: str = "results.jsonl") -> str:
        """The command that fills them; ADAPTER stands for the folder of the state."""
        tasks = " ".join(f"--task {task}" for task in self.tasks)
        if self.state == "base":
            return f"pamctl eval {tasks} --results {results}"
        known = f" ({self.fingerprint[:12]})" if self.fingerprint else ""
        return f"pamctl eval ADAPTER {tasks} --results {results}  # ADAPTER: {self.state}{known}"


@dataclass(frozen=True)
class AccuracyMatrix:
    """The scores of one sequence, in percent, NaN where no result tells.

    Attributes:
        after: (T, T), row t the state after task t, column i the task.
        trained: (T,) score of task t before merging.
        zero_shot: (T,) score of the base.
        kind: how the tasks were learned; but for a `sequence`, only the last row of `after` is known, and for
            tasks learned `apart` the diagonal, which is the same scores.
        adapters: fingerprint of the state after each task; for tasks learned otherwise, of what answers each.
        finals: by task, the results that the last row of `after` has the scores of.
    """

    method: str
    run: str | None
    order: str | None
    seed: int | None
    tasks: tuple[str, ...]
    after: np.ndarray
    trained: np.ndarray
    zero_shot: np.ndarray
    missing: tuple[Missing, ...]
    kind: Kind = "sequence"
    adapters: tuple[str | None, ...] = ()
    finals: Mapping[str, Result] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """The method, with its run label where it has one."""
        return f"{self.method} ({self.run})" if self.run else self.method

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Every metric by name, None where a cell is missing or the metric does not exist for this kind."""
        known = metrics_of(self.after, self.trained, self.zero_shot)
        return {name: value if name in DEFINED[self.kind] else None for name, value in known.items()}

    @cached_property
    def forward_transfers(self) -> dict[str, float | None]:
        """FWT by the name of its variant, None as in `metrics`."""
        if self.kind != "sequence":
            return dict.fromkeys(FWT_VARIANTS)
        return forward_transfers(self.after, self.zero_shot)

    @cached_property
    def forgetting(self) -> list[float | None]:
        """F_t for t = 2..T; empty where no task comes after another."""
        return forgetting(self.after) if self.kind == "sequence" else []

    @cached_property
    def forgetting_from_best(self) -> list[float | None]:
        """The same from the best state since the task was learned."""
        return forgetting_from_best(self.after) if self.kind == "sequence" else []

    @cached_property
    def identity_gap(self) -> float | None:
        """|BWT (T - 1) / T - (ACC - A_m)| of a full sequence of several tasks, None where it says nothing."""
        return identity_gap(self.after) if self.kind == "sequence" else None


def matrices_of(results: Iterable[Result], fwt: str = FWT) -> tuple[list[AccuracyMatrix], list[str]]:
    """The matrices that some results tell of, and notes on what was left out or contradicts.

    Args:
        fwt: the variant of FWT whose cells are missed where no result fills them.

    Raises:
        Refusal: a matrix breaks BWT (T - 1) / T = ACC - A_m.
    """
    notes: list[str] = []
    states = states_of(results, notes)
    bases = [state for state in states if state.stage == "base"]
    learned = [state for state in states if state.stage != "base" and state.tasks]
    chains = chains_of([state for state in learned if not learns_no_sequence(state)])
    unordered = unordered_of([state for state in learned if learns_no_sequence(state)], chains)
    if len(untold := {state.adapter for state in states if state.stage != "base" and not state.tasks}) > 0:
        notes.append(f"in no sequence: {counted(len(untold), 'adapter')} that no learned tasks are told of")
    matrices = [_matrix(chain, bases, fwt) for chain in chains]
    matrices += [_unordered(one, bases) for one in unordered]
    for matrix in matrices:
        gap = matrix.identity_gap
        if gap is not None and gap > ROUNDING:
            raise Refusal(
                f"{matrix.system}: BWT (T - 1) / T differs from ACC - A_m by {gap}",
                "report this as a bug of pamctl",
            )
    return sorted(matrices, key=_place), notes


def _matrix(chain: Chain, bases: list[State], fwt: str) -> AccuracyMatrix:
    method, run, order, seed = chain.labels
    tasks = chain.last.tasks
    base = _base_of([step.after for step in chain.steps if step.after], bases)
    return AccuracyMatrix(
        method=method or "unnamed",
        run=run,
        order=order,
        seed=seed,
        tasks=tasks,
        after=np.array([_scores(step.after, tasks) for step in chain.steps]),
        trained=np.array([_scores(step.before, tasks)[t] for t, step in enumerate(chain.steps)]),
        zero_shot=np.array(_scores(base, tasks)),
        missing=tuple(_missing(chain, base, method or "unnamed", fwt)),
        adapters=tuple(step.after.adapter if step.after else None for step in chain.steps),
        finals={task: cell for task, cell in chain.last.cells.items() if task in tasks},
    )


def _unordered(found: Unordered, bases: list[State]) -> AccuracyMatrix:
    tasks, count = found.tasks, len(found.tasks)
    states = [found.answering.get(task) for task in tasks]
    scores = np.array([_scores(state, (task,))[0] for state, task in zip(states, tasks, strict=True)])
    after, unknown = np.full((count, count), np.nan), np.full(count, np.nan)
    if not found.at_once:
        np.fill_diagonal(after, scores)
    after[-1] = scores
    method, run, order, seed = found.labels
    return AccuracyMatrix(
        method=method or "unnamed",
        run=run,
        order=order,
        seed=seed,
        tasks=tasks,
        after=after,
        trained=unknown if found.at_once else scores,
        zero_shot=np.array(_scores(_base_of(list(found.answering.values()), bases), tasks)),
        missing=tuple(_missing_unordered(found)),
        kind="at once" if found.at_once else "apart",
        adapters=tuple(state.adapter if state else None for state in states),
        finals={task: state.cells[task] for task, state in found.answering.items() if task in state.cells},
    )


def _base_of(states: Sequence[State], bases: list[State]) -> State | None:
    """The base that the states adapt; one of unknown fingerprint is taken for it."""
    known = {cell.base for state in states for cell in state.cells.values()}
    return next((base for base in bases if base.adapter in known or None in (base.adapter, *known)), None)


def _scores(state: State | None, tasks: tuple[str, ...]) -> list[float]:
    return [state.cells[task].score if state and task in state.cells else np.nan for task in tasks]


def _missing(chain: Chain, base: State | None, method: str, fwt: str) -> Iterator[Missing]:
    tasks = chain.last.tasks
    if unknown := _unscored(base, tasks):
        yield Missing("base", None, unknown)
    for t, (before, after) in enumerate(chain.steps):
        if unknown := _unscored(after, tasks[: t + 1] + _unseen(tasks, t, fwt)):
            yield Missing(
                f"{method} after {', '.join(tasks[: t + 1])}", after.adapter if after else None, unknown
            )
        if before is not after and (unknown := _unscored(before, (tasks[t],))):
            state = f"{method} trained on {tasks[t]}, before merging"
            yield Missing(state, before.adapter if before else None, unknown)


def _unseen(tasks: tuple[str, ...], t: int, fwt: str) -> tuple[str, ...]:
    """The tasks not learned by state t whose scores a variant of FWT needs."""
    if fwt == "all-unseen":
        return tasks[t + 1 :]
    last = len(tasks) - 1 if fwt == "paper" else len(tasks)
    return tasks[t + 1 : min(t + 2, last)]


def _missing_unordered(found: Unordered) -> Iterator[Missing]:
    for tasks in [found.tasks] if found.at_once else [(task,) for task in found.tasks]:
        state = found.answering.get(tasks[0])
        if unknown := _unscored(state, tasks):
            name = f"{found.labels.method} trained on {', '.join(tasks)}"
            yield Missing(name, state.adapter if state else None, unknown)


def _unscored(state: State | None, tasks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(task for task in tasks if not state or task not in state.cells)


def _place(matrix: AccuracyMatrix) -> tuple[object, ...]:
    seed = -1 if matrix.seed is None else matrix.seed
    return (-len(matrix.tasks), sorted(matrix.tasks), matrix.system, matrix.order or "", matrix.tasks, seed)
