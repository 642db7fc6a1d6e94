"""What the comparisons with one library have in common."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """diffusers only logs keys that are missing, unexpected or not there: here that fails the test."""
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)
    told = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not [text for text in told if " keys" in text and " to NoneType " not in text], told
