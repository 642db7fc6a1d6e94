"""Work done ahead on several cores, in order, within a bound of memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Schedule:
    """How much may be under way at a time.

    Args:
        workers: threads; numpy's kernels and hashing let go of the interpreter's lock.
        most_bytes: what the items under way may take together; one alone may take more.
    """

    workers: int
    most_bytes: int

    def ahead(
        self, items: Iterable[Item], work: Callable[[Item], Result], bytes_of: Callable[[Item], int]
    ) -> Iterator[Result]:
        """The results in the order of the items; an item counts as under way until its result is taken."""
        if self.workers == 1:
            yield from map(work, items)
            return
        under_way: deque[tuple[Future[Result], int]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for item in items:
                    size = bytes_of(item)
                    while under_way and (
                        len(under_way) > self.workers
                        or size + sum(bytes for _, bytes in under_way) > self.most_bytes
                    ):
                        yield under_way[0][0].result()
                        under_way.popleft()
                    under_way.append((pool.submit(work, item), size))
                while under_way:
                    yield under_way[0][0].result()
                    under_way.popleft()
            finally:
                for future, _ in under_way:
                    future.cancel()


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
