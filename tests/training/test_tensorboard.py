"""TensorBoard's files against its own reader's format, and the library that may be missing."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from pamctl.refusal import UsageRefusal
from pamctl.training.tensorboard import TensorBoard


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of every record; each is a length, a checksum, an event and a checksum."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_steps_and_alignments_are_shown(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, first=1)
    board.event("start", {"seed": 0})
    board.event("step", {"step": 3, "loss": 1.5, "learning_rate": 0.25})
    counts = {"percent": {"overall": 12.5, "a": 10.0}, "modules": {}}
    board.event("align", {"step": 3, "differ": counts, "conflicts": counts})
    board.close()
    assert ("train/loss", 3, 1.5) in scalars(tmp_path)
    assert ("train/learning_rate", 3, 0.25) in scalars(tmp_path)
    assert ("align/conflicts_overall_percent", 3, 12.5) in scalars(tmp_path)
    assert ("align/differ_a_percent", 3, 10.0) in scalars(tmp_path)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(UsageRefusal, match="needs tensorboardX") as refused:
        TensorBoard(tmp_path, first=1)
    assert "pamctl[tensorboard]" in refused.value.way_on
