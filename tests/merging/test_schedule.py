import threading
from collections.abc import Iterator

import pytest

from pamctl.merging.schedule import Schedule, cores


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whatever_is_done_first(workers: int) -> None:
    gate = threading.Event()

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            gate.wait(10)
        gate.set()
        return item * item

    found = Schedule(workers, 1 << 30).ahead(range(20), work, lambda _: 1)
    assert list(found) == [item * item for item in range(20)]


def test_no_more_is_under_way_than_fits() -> None:
    lock, under_way, most = threading.Lock(), [0], [0]

    def work(item: int) -> int:
        with lock:
            under_way[0] += item
            most[0] = max(most[0], under_way[0])
        return item

    for item in Schedule(4, 10).ahead([4, 4, 4, 3, 3, 3, 2, 25, 1], work, lambda item: item):
        with lock:
            under_way[0] -= item
    assert most[0] <= 25 + 10


def test_one_that_is_larger_than_the_bound_is_done_alone() -> None:
    assert list(Schedule(2, 1).ahead([5, 7], lambda item: item, lambda item: item)) == [5, 7]


def test_a_fault_reaches_the_caller_and_ends_the_work() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(Schedule(2, 100).ahead(range(1000), work, lambda _: 1))
    assert len(begun) < 20


def test_a_caller_that_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    results: Iterator[int] = Schedule(2, 100).ahead(range(1000), lambda item: item, lambda _: 1)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_there_is_a_core() -> None:
    assert cores() >= 1
