"""Methods that learn no sequence: tasks apart are put together, tasks at once stand alone."""

import numpy as np
import pytest

from pamctl.evaluation.matrix import AccuracyMatrix, matrices_of
from pamctl.evaluation.results import Result

BASE = [Result(task, "base", (), "exact", 10.0, 4) for task in "abc"]


def apart(scores: dict[str, float], **labels: object) -> list[Result]:
    """One adapter a task, scored on it."""
    return [
        Result(task, "trained", (task,), "exact", score, 4, method="independent", **labels)  # type: ignore[arg-type]
        for task, score in scores.items()
    ]


def in_sequence(tasks: str, order: str | None = None, method: str = "lwf") -> list[Result]:
    return [
        Result(task, "trained", tuple(tasks[:count]), "exact", 50.0, 4, method=method, order=order)
        for count in range(1, len(tasks) + 1)
        for task in tasks
    ]


def learned_apart(results: list[Result]) -> list[AccuracyMatrix]:
    return [matrix for matrix in matrices_of(results)[0] if matrix.kind == "apart"]


def test_tasks_learned_apart_have_a_mean_and_nothing_is_missing() -> None:
    results = apart({"a": 60.0, "b": 80.0, "c": 100.0}, seed=0)
    [matrix], notes = matrices_of(results)
    assert (matrix.method, matrix.kind, matrix.missing, notes) == ("independent", "apart", (), [])
    assert matrix.metrics == {"ACC": 80.0, "BWT": None, "FWT": None, "A_t": 80.0, "A_m": 80.0}
    assert matrix.forgetting == []
    assert matrix.identity_gap is None


def test_zero_shot_is_that_of_their_base() -> None:
    [matrix], _ = matrices_of([*BASE, *apart({"a": 60.0, "b": 80.0})])
    assert matrix.zero_shot.tolist() == [10.0, 10.0]


def test_only_an_adapter_s_own_task_counts() -> None:
    other = Result("b", "trained", ("a",), "exact", 3.0, 4, method="independent")
    [matrix], _ = matrices_of([other, *apart({"a": 60.0, "b": 80.0})])
    assert matrix.metrics["ACC"] == 70.0


def test_runs_orders_and_seeds_are_kept_apart() -> None:
    places: list[dict[str, object]] = [
        {"seed": 0},
        {"seed": 1},
        {"seed": 0, "order": "o"},
        {"seed": 0, "run": "r"},
    ]
    results = [one for number, place in enumerate(places) for one in apart({"a": 0.0, "b": number}, **place)]
    found = {(m.run, m.order, m.seed): m.metrics["ACC"] for m in matrices_of(results)[0]}
    assert found == {
        (None, None, 0): 0.0,
        (None, None, 1): 0.5,
        (None, "o", 0): 1.0,
        ("r", None, 0): 1.5,
    }


def test_a_task_learned_twice_is_another_group() -> None:
    twice = [one for name in "pq" for one in apart({"a": 60.0, "b": 80.0}, adapter=name)]
    assert [matrix.tasks for matrix in learned_apart(twice)] == [("a", "b")] * 2


def test_they_are_compared_over_the_tasks_of_each_sequence_beside() -> None:
    results = apart({"a": 60.0, "b": 80.0, "c": 10.0})
    found = learned_apart([*results, *in_sequence("ba"), *in_sequence("cba")])
    assert {matrix.tasks: matrix.metrics["ACC"] for matrix in found} == {
        ("b", "a"): 70.0,
        ("c", "b", "a"): 50.0,
    }


def test_a_task_that_no_sequence_has_is_not_left_out() -> None:
    found = learned_apart([*apart({"a": 60.0, "b": 80.0, "c": 10.0}), *in_sequence("ba")])
    assert {matrix.tasks for matrix in found} == {("b", "a"), ("a", "b", "c")}


def test_the_label_of_an_order_chooses_its_sequences() -> None:
    results = [*apart({"a": 60.0, "b": 80.0}, order="short"), *in_sequence("ba", "short")]
    [matrix] = learned_apart([*results, *in_sequence("a", "one"), *in_sequence("abc", "long")])
    assert matrix.tasks == ("b", "a")


def test_a_task_that_lacks_comes_with_its_command() -> None:
    [matrix] = learned_apart([*apart({"a": 60.0, "c": 10.0}, adapter="t"), *in_sequence("abc")])
    assert matrix.tasks == ("a", "b", "c")
    assert matrix.metrics["ACC"] is None
    [missing] = matrix.missing
    assert missing.command() == (
        "pamctl eval ADAPTER --task b --results results.jsonl  # ADAPTER: independent trained on b"
    )


def test_tasks_learned_at_once_have_one_mean() -> None:
    results = [
        Result(task, "trained", ("a", "b"), "exact", score, 4, adapter="m", method="multitask", seed=0)
        for task, score in {"a": 40.0, "b": 60.0}.items()
    ]
    [matrix], _ = matrices_of(results)
    assert (matrix.method, matrix.kind, matrix.missing) == ("multitask", "at once", ())
    assert matrix.metrics == {"ACC": 50.0, "BWT": None, "FWT": None, "A_t": None, "A_m": None}
    [partial], _ = matrices_of(results[:1])
    assert partial.metrics["ACC"] is None
    assert [missing.state for missing in partial.missing] == ["multitask trained on a, b"]


@pytest.mark.parametrize("method", ["independent", "multitask"])
def test_their_adapters_begin_no_sequence(method: str) -> None:
    """A first task of the same tasks and labels is another method's."""
    first = Result("a", "trained", ("a",), "exact", 99.0, 4, method=method, adapter="i")
    second = Result("a", "trained", ("a", "b"), "exact", 1.0, 4, method="lwf", adapter="l", parents=("i",))
    sequence = next(m for m in matrices_of([first, second])[0] if m.kind == "sequence")
    assert np.isnan(sequence.after[0]).all()
