"""Two runs of the same systems: matched by order and seed, whatever orders are called."""

from dataclasses import replace

import pytest

from pamctl.evaluation.baseline import Changes, changes_of
from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import Comparison, Spread, comparisons_of


def sequence(method: str, tasks: str, seed: int, first: float, last: float, **fields: str) -> list[Result]:
    """Two tasks: both score `first` when learned, the first one `last` in the end."""
    cells = ((tasks[:1], tasks[0], first), (tasks, tasks[0], last), (tasks, tasks[1], first))
    return [
        Result(task, "trained", tuple(learned), "exact", score, 4, method=method, seed=seed, **fields)  # type: ignore[arg-type]
        for learned, task, score in cells
    ]


def comparison(*results: list[Result]) -> Comparison:
    found, _ = matrices_of([each for some in results for each in some])
    (one,) = comparisons_of(found)
    return one


@pytest.fixture
def changes() -> Changes:
    before = comparison(
        sequence("pam", "ab", 0, 80.0, 50.0, order="one"),
        sequence("pam", "ab", 1, 80.0, 50.0, order="one"),
        sequence("pam", "ba", 0, 80.0, 50.0, order="two"),
        sequence("ties", "ab", 0, 80.0, 50.0),
    )
    now = comparison(
        sequence("pam", "ab", 0, 80.0, 60.0, order="called otherwise"),
        sequence("pam", "ba", 0, 70.0, 50.0, order="two"),
        sequence("pam", "ba", 9, 0.0, 0.0, order="two"),
        sequence("lwf", "ab", 0, 80.0, 50.0),
    )
    return changes_of(now, before)


def test_metrics_differ_over_the_sequences_that_both_have(changes: Changes) -> None:
    found = {(pair.second, pair.metric): pair for pair in changes.metrics}
    acc = found["pam", "ACC"]
    # ab: (60 + 80) / 2 - (50 + 80) / 2 = 5; ba: (50 + 70) / 2 - 65 = -5
    assert acc.differences == {("called otherwise", 0): 5.0, ("two", 0): -5.0}
    assert acc.spread == Spread(0.0, 5.0, 2)
    # ab: (60 - 80) - (50 - 80) = 10; ba: (50 - 70) - (50 - 80) = 10
    assert found["pam", "BWT"].spread == Spread(10.0, 0.0, 2)
    assert {system for system, _ in found} == {"pam"}
    assert (changes.only_now, changes.only_before) == (("lwf",), ("ties",))


def test_cells_that_differ_are_told_largest_first(changes: Changes) -> None:
    told = [(cell.order, cell.after, cell.task, cell.before, cell.now) for cell in changes.cells]
    assert told == [
        ("called otherwise", 2, "a", 50.0, 60.0),
        ("two", 1, "b", 80.0, 70.0),
        ("two", 2, "a", 80.0, 70.0),
    ]
    assert [cell.difference for cell in changes.largest] == [10.0, -10.0, -10.0]
    assert changes.compared == 6


def test_tasks_in_no_order_are_matched_by_name() -> None:
    def apart(tasks: str, **scores: float) -> list[Result]:
        return [
            Result(task, "trained", (task,), "exact", scores[task], 4, method="independent", seed=0)
            for task in tasks
        ]

    changes = changes_of(comparison(apart("ab", a=50.0, b=70.0)), comparison(apart("ba", a=50.0, b=60.0)))
    assert [(cell.task, cell.difference) for cell in changes.cells] == [("b", 10.0)]
    assert changes.compared == 2


def test_a_run_against_itself_differs_nowhere() -> None:
    base = [Result(task, "base", (), "exact", 5.0, 4) for task in "ab"]
    one = comparison(base, sequence("pam", "ab", 0, 80.0, 50.0))
    changes = changes_of(
        one, comparison(base, [replace(each) for each in sequence("pam", "ab", 0, 80.0, 50.0)])
    )
    assert (changes.cells, changes.compared) == ((), 2 + 3)
    assert {pair.metric for pair in changes.metrics} == {"ACC", "BWT", "A_t", "A_m"}
    assert {pair.spread for pair in changes.metrics} == {Spread(0.0, 0.0, 1)}
