"""Means, spreads and paired differences over orders and seeds."""

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


def test_labels_name_orders() -> None:
    matrices, _ = matrices_of([*one("x", "ab", 0, 80.0, 1.0, "coin-1"), *one("x", "ba", 0, 80.0, 1.0)])
    assert comparisons_of(matrices)[0].orders == ("order 1", "coin-1")
