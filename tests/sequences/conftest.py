"""What holds for tests of sequences that are trained in this process."""

from collections.abc import Iterator

import pytest

from tests.in_haste import compiled_in_haste


@pytest.fixture(scope="module", autouse=True)
def _in_haste() -> Iterator[None]:
    with compiled_in_haste():
        yield
