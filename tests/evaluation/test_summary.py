"""Means, spreads and paired differences over orders and seeds."""

from dataclasses import replace

import pytest

from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import Comparison, Spread, comparisons_of, spread_of


def one(
    method: str, order: str, seed: int, first: float, last: float, label: str | None = None
) -> list[Result]:
    states = (((order[0],), {order[0]: first}), (tuple(order), {order[0]: last, order[1]: first}))
    return [
        Result(task, "trained", learned, "exact", score, 4, method=method, seed=seed, order=label)
        for learned, scores in states
        for task, score in scores.items()
    ]


@pytest.fixture
def comparison() -> Comparison:
    results = [
        *one("x", "ab", 0, 80.0, 20.0),
        *one("x", "ab", 1, 80.0, 40.0),
        *one("x", "ba", 0, 80.0, 60.0),
        *one("y", "ab", 0, 80.0, 30.0),
        *one("y", "ba", 0, 80.0, 50.0),
        *one("y", "ba", 7, 80.0, 0.0),
        *one("x", "ac", 0, 80.0, 0.0),
    ]
    first, other = comparisons_of(matrices_of(results)[0])
    assert set(other.tasks) == {"a", "c"}
    return first


def test_spread_is_the_population_deviation() -> None:
    assert spread_of([1.0, 3.0]) == Spread(2.0, 1.0, 2)
    assert spread_of([5.0]) == Spread(5.0, 0.0, 1)


def test_only_sequences_over_the_same_tasks_are_averaged(comparison: Comparison) -> None:
    assert comparison.systems == ("x", "y")
    assert comparison.orders == ("order 1", "order 2")
    assert comparison.spread("x", "ACC") == Spread(60.0, pytest.approx((200 / 3) ** 0.5), 3)  # type: ignore[arg-type]
    assert comparison.spread("x", "ACC", "order 1") == Spread(55.0, 5.0, 2)
    assert comparison.spread("x", "FWT") is None
    assert comparison.final_score("x", "a") == spread_of([20.0, 40.0, 80.0])
    assert comparison.forgetting("y") == [spread_of([50.0, 30.0, 80.0])]
    assert comparison.zero_shot() == {"a": None, "b": None}


def test_differences_are_paired_by_order_and_seed(comparison: Comparison) -> None:
    pairs = {pair.metric: pair for pair in comparison.pairs()}
    assert set(pairs) == {"ACC", "BWT", "A_t", "A_m"}
    assert (pairs["ACC"].first, pairs["ACC"].second) == ("x", "y")
    assert pairs["ACC"].differences == {("order 1", 0): 5.0, ("order 2", 0): -5.0}
    assert pairs["ACC"].spread == Spread(0.0, 5.0, 2)
    assert pairs["ACC"].better == 1


def without_order(method: str, tasks: str, score: float, **labels: object) -> list[Result]:
    """Each task by an adapter of its own, or all at once, as the method learns them."""
    learned = {task: (task,) if method == "independent" else tuple(tasks) for task in tasks}
    return [
        Result(task, "trained", learned[task], "exact", score, 4, method=method, adapter=method, **labels)  # type: ignore[arg-type]
        for task in tasks
    ]


@pytest.fixture
def with_bounds() -> Comparison:
    """Two orders of one system, and methods without an order: one label, and none."""
    results = [
        *one("average", "ab", 0, 80.0, 20.0, "o1"),
        *one("average", "ba", 0, 80.0, 60.0, "o2"),
        *without_order("independent", "ba", 90.0, seed=0),
        *without_order("multitask", "ba", 75.0, seed=0, order="o1"),
    ]
    [comparison] = comparisons_of(matrices_of(results)[0])
    return comparison


def test_systems_stand_in_the_order_of_the_methods_and_others_after() -> None:
    order = ("finetune", "average", "pam", "lwf+pam", "another", "mine")
    results = [result for method in sorted(order) for result in one(method, "ab", 0, 80.0, 20.0)]
    tuned = [replace(result, run="p=30") for result in one("pam", "ab", 0, 80.0, 20.0)]
    [comparison] = comparisons_of(matrices_of([*tuned, *results])[0])
    assert comparison.systems == (*order[:3], "pam (p=30)", *order[3:])


def test_what_has_no_order_belongs_to_every_order_and_counts_once(with_bounds: Comparison) -> None:
    assert with_bounds.orders == ("o1", "o2")
    assert with_bounds.tasks == ("a", "b")
    assert with_bounds.systems == ("average", "independent", "multitask")
    assert with_bounds.sequential == ("average",)
    for order in ("o1", "o2"):
        assert with_bounds.spread("independent", "ACC", order) == Spread(90.0, 0.0, 1)
        assert with_bounds.spread("multitask", "ACC", order) == Spread(75.0, 0.0, 1)
    assert with_bounds.spread("independent", "ACC") == Spread(90.0, 0.0, 1)
    assert [with_bounds.order_of(m) for m in with_bounds.of("independent")] == ["any order"]
    assert [with_bounds.order_of(m) for m in with_bounds.of("multitask")] == ["o1"]


def test_what_does_not_exist_is_told_from_what_is_missing(with_bounds: Comparison) -> None:
    assert with_bounds.defines("average", "FWT")
    assert with_bounds.defines("independent", "A_t")
    assert not with_bounds.defines("independent", "BWT")
    assert not with_bounds.defines("multitask", "A_t")


def test_differences_from_one_system(with_bounds: Comparison) -> None:
    pairs = {(pair.second, pair.metric): pair for pair in with_bounds.pairs("average")}
    assert set(pairs) == {("independent", m) for m in ("ACC", "A_t", "A_m")} | {("multitask", "ACC")}
    assert {pair.first for pair in pairs.values()} == {"average"}
    ahead = pairs["independent", "ACC"]
    assert ahead.differences == {("o1", 0): 40.0, ("o2", 0): 20.0}
    assert (ahead.spread, ahead.better) == (Spread(30.0, 10.0, 2), 2)
    assert ahead.spread_in("o2") == Spread(20.0, 0.0, 1)
    assert ahead.spread_in("o3") is None


def test_without_sequences_there_is_still_an_order() -> None:
    [comparison] = comparisons_of(matrices_of(without_order("multitask", "ab", 75.0))[0])
    assert (comparison.orders, comparison.tasks, comparison.sequential) == (("any order",), ("a", "b"), ())


def test_labels_name_orders() -> None:
    matrices, _ = matrices_of([*one("x", "ab", 0, 80.0, 1.0, "coin-1"), *one("x", "ba", 0, 80.0, 1.0)])
    assert comparisons_of(matrices)[0].orders == ("order 1", "coin-1")


def test_systems_of_the_same_adapters_are_told_with_how_often(comparison: Comparison) -> None:
    made = {("x", 0, "ab"): "s", ("y", 0, "ab"): "s", ("x", 0, "ba"): "t", ("y", 0, "ba"): "t"}
    matrices = [
        replace(matrix, adapters=(f"{name}1", f"{name}2"))
        for matrix in comparison.matrices
        for name in [made.get((matrix.method, matrix.seed or 0, "".join(matrix.tasks)), matrix.method)]
    ]
    assert comparison.alike() == {}
    assert Comparison(tuple(matrices)).alike() == {("x", "y"): 2}
    last = [replace(matrix, adapters=("first", matrix.method)) for matrix in comparison.matrices]
    assert Comparison(tuple(last)).alike() == {}
