"""A Hub that has one adapter, and a client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.hub_client import ADAPTER, Client
from tests.hub_server import Hub, serve


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as served:
        served.repository("org/name").commit(ADAPTER)
        yield served


@pytest.fixture
def client(tmp_path: Path, hub: Hub) -> Client:
    return Client(tmp_path / "home", hub.endpoint)
