"""Batches made before they are asked for, so that decoding images keeps no device waiting."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], steps: Iterable[int], depth: int = 2) -> Generator[T, None, None]:
    """Yield make(step) for each step in order, up to `depth` of them made before they are asked for.

    They are made one after the other on one thread. What `make` raises is raised in its step's turn. Close
    the iterator to leave early: it waits for the one being made.
    """
    remaining = iter(steps)
    with ThreadPoolExecutor(1, "batches") as maker:
        waiting: deque[Future[T]] = deque(maker.submit(make, step) for step in islice(remaining, depth))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(maker.submit(make, step) for step in islice(remaining, 1))
                yield made
        finally:
            for one in waiting:
                one.cancel()
