"""The metrics log: appended as it grows, cut back to what a checkpoint vouches for."""

import json
from pathlib import Path

import pytest

from pamctl.training.metrics_log import FILE_NAME, MetricsLog


def test_what_lies_behind_the_checkpoint_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = MetricsLog(file)
    log.event("step", {"step": 1})
    size = log.synced()
    log.event("step", {"step": 2})
    log.flush()
    log.close()
    again = MetricsLog(file, size)
    again.event("step", {"step": 3})
    again.flush()
    again.close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 3]


def test_without_a_file_it_is_kept_in_memory(tmp_path: Path) -> None:
    log = MetricsLog()
    log.event("start", {"task": "été"})
    log.flush()
    log.close()
    log.write_to(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == '{"event": "start", "task": "été"}\n'.encode()


def test_not_a_number_never_gets_in() -> None:
    with pytest.raises(ValueError, match="JSON"):
        MetricsLog().event("step", {"loss": float("nan")})
