"""Files that several processes append to: killed writers and crashed machines cost no record of others."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pamctl.evaluation.json_lines import append_records, read_lines
from pamctl.refusal import Refusal
from tests.evaluation import killed_writers

ROUNDS = 20


def test_writers_killed_in_mid_record_cost_no_record_but_the_one_under_way(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    done = subprocess.run(
        [sys.executable, killed_writers.__file__, file, str(ROUNDS)],
        capture_output=True,
        timeout=120,
        check=True,
    )
    written = {int(writer): count for writer, count in json.loads(done.stdout).items()}
    assert sum(written.values()) > ROUNDS
    lines = [*read_lines(file)]
    torn = [line for line in lines if line.record is None]
    # A kill between two records tears nothing, and of two writers one may only have waited for its turn.
    assert 0 < len(torn) <= 2 * ROUNDS
    found = Counter((line.record["writer"], line.record["number"]) for line in lines if line.record)
    assert {*found.values()} == {1}
    for writer, count in written.items():
        numbers = sorted(number for of, number in found if of == writer)
        # The last may be whole though its writer was killed before it could tell.
        assert numbers in ([*range(count)], [*range(count + 1)])
    append_records(file, [{"writer": -1}])
    assert [line.record for line in read_lines(file)][-1] == {"writer": -1}
    assert len([*read_lines(file)]) == len(lines) + 1


@pytest.mark.parametrize(
    "record", [{"a": {"b": "}{"}, "c": '"\\'}, {"schema": "x", "ß": [{"n": 1}, {"n": "ä"}]}]
)
def test_a_record_cut_off_anywhere_is_torn_and_not_refused(tmp_path: Path, record: dict[str, object]) -> None:
    whole = json.dumps(record, ensure_ascii=False).encode()
    for end in range(1, len(whole)):
        (tmp_path / "r.jsonl").write_bytes(whole[:end])
        assert [line.record for line in read_lines(tmp_path / "r.jsonl")] == [None], whole[:end]
    (tmp_path / "r.jsonl").write_bytes(whole)
    assert [line.record for line in read_lines(tmp_path / "r.jsonl")] == [record]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a": "\\ud83d"}', "line 2 has a text with half of a character in it"),
        (b'{"\\uD83D": 1}', "line 2 has a text with half of a character in it"),
        (b'{"a": "\xed\xa0\xbd"}', "line 2 is not JSON"),
        (b'{"a": "\xff"}', "line 2 is not JSON"),
    ],
)
def test_a_text_that_no_file_can_hold_is_refused(tmp_path: Path, line: bytes, fault: str) -> None:
    whole = b'{"a": "\\ud83d\\ude00"}'
    (tmp_path / "r.jsonl").write_bytes(whole + b"\n" + line + b"\n" + whole)
    with pytest.raises(Refusal, match=fault):
        [*read_lines(tmp_path / "r.jsonl")]
    (tmp_path / "r.jsonl").write_bytes(whole)
    assert [read.record for read in read_lines(tmp_path / "r.jsonl")] == [{"a": "\U0001f600"}]
