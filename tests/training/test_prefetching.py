"""Batches made ahead: in order, not too many, faults in their turn, and an early end."""

import threading
from contextlib import closing

import pytest

from pamctl.training.prefetching import made_ahead


def test_they_come_in_order_made_on_another_thread() -> None:
    threads = list(made_ahead(lambda step: (step, threading.current_thread().name), range(3, 8)))
    assert [step for step, _ in threads] == [3, 4, 5, 6, 7]
    assert {name for _, name in threads}.isdisjoint({threading.current_thread().name})


def test_the_next_is_made_before_it_is_asked_for_and_no_more_than_the_depth() -> None:
    made, third = [], threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 3:
            third.set()
        return step

    with closing(made_ahead(make, range(1, 9), depth=2)) as batches:
        assert next(batches) == 1
        assert third.wait(10)
        assert made == [1, 2, 3]


def test_a_fault_comes_in_its_turn() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("broken")
        return step

    batches = made_ahead(make, range(1, 5))
    assert next(batches) == 1
    with pytest.raises(ValueError, match="broken"):
        next(batches)


def test_an_early_end_leaves_no_thread() -> None:
    before = threading.active_count()
    with closing(made_ahead(lambda step: step, range(1000))) as batches:
        next(batches)
    assert threading.active_count() == before


def test_nothing_is_asked_for() -> None:
    assert list(made_ahead(lambda step: step, range(0))) == []
