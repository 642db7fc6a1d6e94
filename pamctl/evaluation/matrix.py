"""What an accuracy matrix is: the scores of one sequence after each of its tasks, and what it lacks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pamctl.evaluation.metrics import forgetting, identity_gap, metrics_of
from pamctl.evaluation.results import Result
from pamctl.evaluation.sequences import Chain, State, chains_of, states_of
from pamctl.refusal import Refusal

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

    @property
    def system(self) -> str:
        """The method, with its run label where it has one."""
        return f"{self.method} ({self.run})" if self.run else self.method

    @property
    def metrics(self) -> dict[str, float | None]:
        """Every metric by name, None where a cell is missing."""
        return metrics_of(self.after, self.trained, self.zero_shot)

    @property
    def forgetting(self) -> list[float | None]:
        """F_t for t = 2..T."""
        return forgetting(self.after)


def matrices_of(results: Iterable[Result]) -> tuple[list[AccuracyMatrix], list[str]]:
    """Every sequence that some results tell of, and notes on what was left out or contradicts.

    Raises:
        Refusal: a matrix breaks BWT (T - 1) / T = ACC - A_m.
    """
    notes: list[str] = []
    states = states_of(results, notes)
    bases = [state for state in states if state.stage == "base"]
    chains = chains_of([state for state in states if state.stage != "base" and state.tasks])
    if len(untold := {state.adapter for state in states if state.stage != "base" and not state.tasks}) > 0:
        notes.append(f"{len(untold)} adapter(s) tell no learned tasks, so they are in no sequence")
    matrices = [_matrix(chain, bases) for chain in chains]
    for matrix in matrices:
        gap = identity_gap(matrix.after)
        if gap is not None and gap > ROUNDING:
            raise Refusal(
                f"{matrix.system}: BWT (T - 1) / T differs from ACC - A_m by {gap}",
                "report this as a bug of pamctl",
            )
    return sorted(matrices, key=_place), notes


def _matrix(chain: Chain, bases: list[State]) -> AccuracyMatrix:
    method, run, order, seed = chain.labels
    tasks = chain.last.tasks
    known = {cell.base for step in chain.steps if step.after for cell in step.after.cells.values()}
    base = next((base for base in bases if base.adapter in known or None in (base.adapter, *known)), None)
    return AccuracyMatrix(
        method=method or "unnamed",
        run=run,
        order=order,
        seed=seed,
        tasks=tasks,
        after=np.array([_scores(step.after, tasks) for step in chain.steps]),
        trained=np.array([_scores(step.before, tasks)[t] for t, step in enumerate(chain.steps)]),
        zero_shot=np.array(_scores(base, tasks)),
        missing=tuple(_missing(chain, base, method or "unnamed")),
    )


def _scores(state: State | None, tasks: tuple[str, ...]) -> list[float]:
    return [state.cells[task].score if state and task in state.cells else np.nan for task in tasks]


def _missing(chain: Chain, base: State | None, method: str) -> Iterator[Missing]:
    tasks = chain.last.tasks
    if unknown := _unscored(base, tasks):
        yield Missing("base", None, unknown)
    for t, (before, after) in enumerate(chain.steps):
        if unknown := _unscored(after, tasks[: t + 2]):
            yield Missing(
                f"{method} after {', '.join(tasks[: t + 1])}", after.adapter if after else None, unknown
            )
        if before is not after and (unknown := _unscored(before, (tasks[t],))):
            state = f"{method} trained on {tasks[t]}, before merging"
            yield Missing(state, before.adapter if before else None, unknown)


def _unscored(state: State | None, tasks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(task for task in tasks if not state or task not in state.cells)


def _place(matrix: AccuracyMatrix) -> tuple[object, ...]:
    seed = -1 if matrix.seed is None else matrix.seed
    return (-len(matrix.tasks), sorted(matrix.tasks), matrix.system, matrix.order or "", matrix.tasks, seed)
