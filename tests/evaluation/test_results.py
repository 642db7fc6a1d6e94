"""Results files: what a record holds, several writers, killed writers, lines at fault."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pamctl.evaluation.results import Result, TypeScore, append_results, read_results
from pamctl.refusal import Refusal, UsageRefusal

RESULT = Result(
    "größe",
    "merged",
    ("a", "b"),
    "exact",
    12.5,
    8,
    adapter="f" * 64,
    seed=0,
    types={"yes/no": TypeScore(50.0, 2), "ß": TypeScore(0.0, 5)},
    unread=3,
)

WRITER = """
import sys
from pathlib import Path
from pamctl.evaluation.results import Result, append_results
for n in range(1, 41):
    append_results(Path(sys.argv[1]), [Result(sys.argv[2] * 300, "base", (), "exact", 50.0, n)] * 2)
"""

KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from pamctl.evaluation.results import Result, append_results
write = os.write
def torn(file, data):
    write(file, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = torn
append_results(Path(sys.argv[1]), [Result("größe", "base", (), "exact", 50.0, 1)])
"""


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    append_results(file, [RESULT])
    append_results(file, [RESULT, RESULT])
    assert read_results([file, file]) == ([RESULT] * 6, [])
    record = json.loads(file.read_text().splitlines()[0])
    assert record["schema"] == "pamctl.result/1"
    assert {"task", "stage", "tasks", "metric", "score", "n"} <= record.keys()


def test_the_contracts_fields_alone_make_a_result(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(
        '{"task": "t", "stage": "base", "tasks": [], "metric": "exact", "score": 1, "n": 2, "x": 1}'
    )
    assert read_results([file])[0] == [Result("t", "base", (), "exact", 1, 2)]


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, file, name]) for name in "xy"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    results, notes = read_results([file])
    assert notes == []
    for name in "xy":
        counts = [result.n for result in results if result.task == name * 300]
        assert counts == [n for n in range(1, 41) for _ in "12"]
    assert len(results) == 160


def test_a_killed_writer_costs_its_own_line_only(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [RESULT])
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, file], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not file.read_bytes().endswith(b"\n")
    assert len(read_results([file])[0]) == 1
    append_results(file, [RESULT])
    results, notes = read_results([file])
    assert results == [RESULT, RESULT]
    assert notes == [f"{file} line 2 was left torn by a stopped writer and is skipped"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [RESULT])
    before, write, room = file.read_bytes(), os.write, [7, 0]

    def disk_fills_up(handle: int, data: bytes) -> int:
        if not (left := room.pop(0)):
            raise OSError(28, "No space left on device")
        return write(handle, data[:left])

    monkeypatch.setattr(os, "write", disk_fills_up)
    with pytest.raises(Refusal, match="no space left"):
        append_results(file, [RESULT])
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"score": 101}, "`score` is 101 percent"),
        ({"score": "12"}, "`score` is '12'"),
        ({"score": True}, "`score` is True"),
        ({"n": 0}, "of n = 0"),
        ({"n": 1.5}, "`n` is 1.5"),
        ({"task": None}, "`task` is missing"),
        ({"tasks": "a"}, "`tasks` is 'a'"),
        ({"tasks": [1]}, "`tasks` is [1]"),
        ({"stage": "final"}, "`stage` is 'final'"),
        ({"schema": "other/2"}, "`schema` is 'other/2'"),
        ({"parents": [None]}, "`parents` is [None]"),
        ({"unread": "2"}, "`unread` is '2'"),
        ({"unread": 9}, "`unread` is 9 of n = 8"),
        ({"unread": -1}, "`unread` is -1"),
        ({"types": ["a"]}, "`types` is ['a']"),
        ({"types": {"a": 1.0}}, "`types` has 1.0 for 'a'"),
        ({"types": {"a": {"score": 1.0}}}, "`types` has {'score': 1.0} for 'a'"),
        ({"types": {"a": {"score": True, "n": 1}}}, "`types` has {'score': True, 'n': 1} for 'a'"),
        ({"types": {"a": {"score": 101, "n": 1}}}, "`types` has {'score': 101, 'n': 1} for 'a'"),
        ({"types": {"a": {"score": 1, "n": 0}}}, "`types` has {'score': 1, 'n': 0} for 'a'"),
        ({"types": {"a": {"score": 1, "n": 9}}}, "`types` has 9 examples of n = 8"),
    ],
)
def test_a_record_at_fault_is_named_by_line_and_field(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("\n" + json.dumps(RESULT.to_json() | change) + "\n")
    with pytest.raises(Refusal) as refused:
        read_results([file])
    assert f"{file} line 2" in refused.value.what
    assert fault in refused.value.what


def test_a_record_may_be_torn_at_any_byte(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [RESULT])
    whole = file.read_bytes()[:-1]
    for end in range(1, len(whole)):
        file.write_bytes(whole[:end] + b"\n" + whole + b"\n")
        results, notes = read_results([file])
        assert (results, len(notes)) == ([RESULT], 1), whole[:end]
        assert "line 1 was left torn" in notes[0]


def test_zeros_that_a_crash_of_the_machine_left_are_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b'{"task": "t", "sta' + b"\0" * 40)
    append_results(file, [RESULT])
    assert read_results([file]) == (
        [RESULT],
        [f"{file} line 1 was left torn by a stopped writer and is skipped"],
    )


@pytest.mark.parametrize("text", ["hello\n", "[1]\n", '{"a": }\n', '{"score": NaN}\n'])
def test_a_line_that_no_writer_left_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(Refusal, match="line 1"):
        read_results([tmp_path / "r.jsonl"])


def test_absent_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match="is not a file"):
        read_results([tmp_path / "no.jsonl"])
    (tmp_path / "r.jsonl").write_text("\n")
    with pytest.raises(Refusal, match="holds no results"):
        read_results([tmp_path / "r.jsonl"])
    with pytest.raises(UsageRefusal, match="is not a file"):
        append_results(tmp_path, [RESULT])
    with pytest.raises(Refusal, match="cannot be made"):
        append_results(tmp_path / "r.jsonl" / "x", [RESULT])
