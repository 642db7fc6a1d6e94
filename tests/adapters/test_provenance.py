import json
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import BaseModel, Parent, Provenance
from pamctl.adapters.provenance import SCHEMA, embedded_provenance, read_provenance, write_provenance
from pamctl.refusal import Refusal

FULL = Provenance(
    kind="trained",
    stage="trained",
    tasks=("first", "second"),
    parents=(Parent("ab"), Parent("cd", "org/name")),
    base=BaseModel("tiny", "ef"),
    method="pam",
    parameters={"top_p": 50.0, "scope": "global"},
    seed=0,
    conflicts={"weights": 3},
    versions={"pamctl": "1"},
)


@pytest.mark.parametrize("record", [FULL, Provenance("merged", "merged")], ids=["full", "least"])
def test_a_record_comes_back_as_it_was_written(record: Provenance, tmp_path: Path) -> None:
    write_provenance(record, tmp_path)
    assert read_provenance(tmp_path) == record


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None


def test_a_field_of_a_later_release_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "pamctl.json").write_text(json.dumps({**FULL.to_json(), "later": 1}))
    assert read_provenance(tmp_path) == FULL


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"schema": "pamctl.adapter/2"}, "schema is 'pamctl.adapter/2'"),
        ({"kind": "grown"}, "kind is 'grown'"),
        ({"stage": None}, "stage is None"),
        ({"tasks": "first"}, "tasks holds 'first', not a list"),
        ({"tasks": [1]}, "tasks holds 1"),
        ({"parents": [{}]}, "parents: fingerprint holds None"),
        ({"base": "tiny"}, "base holds 'tiny'"),
        ({"seed": True}, "seed holds True"),
        ({"parameters": None}, "parameters holds None"),
    ],
    ids=str,
)
def test_a_malformed_record_is_refused_with_the_field_named(
    changed: dict[str, Any], told: str, tmp_path: Path
) -> None:
    (tmp_path / "pamctl.json").write_text(json.dumps({**FULL.to_json(), **changed}))
    with pytest.raises(Refusal) as refusal:
        read_provenance(tmp_path)
    assert told in refusal.value.what
    assert "pamctl.json" in refusal.value.what


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_a_record_in_another_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "pamctl.json").write_bytes(json.dumps(FULL.to_json()).encode(encoding))
    with pytest.raises(Refusal, match=r"pamctl\.json"):
        read_provenance(tmp_path)


def test_half_a_character_in_a_files_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"a\.safetensors: method holds '\\ud800"):
        embedded_provenance(
            {"pamctl": json.dumps({**FULL.to_json(), "method": "\ud800"})}, tmp_path / "a.safetensors"
        )
    with pytest.raises(Refusal, match=r"a\.safetensors"):
        embedded_provenance({"pamctl": "\ud800"}, tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "\xff\xfe", "null"])
def test_a_file_that_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "pamctl.json").write_text(text)
    with pytest.raises(Refusal, match=r"pamctl\.json"):
        read_provenance(tmp_path)


def test_the_file_states_its_schema(tmp_path: Path) -> None:
    write_provenance(FULL, tmp_path)
    assert json.loads((tmp_path / "pamctl.json").read_text())["schema"] == SCHEMA


def test_a_record_larger_than_any_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "pamctl.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refusal, match=r"pamctl\.json is larger than"):
        read_provenance(tmp_path)


@pytest.mark.parametrize("field", ["kind", "stage", "schema", "method", "tasks"])
@pytest.mark.parametrize("value", ["\x1b[2Jx\nHint: run me", "x" * 100_000 + "\n"])
def test_what_a_record_says_neither_commands_the_terminal_nor_fills_it(
    field: str, value: str, tmp_path: Path
) -> None:
    record = FULL.to_json() | {field: [value] if field == "tasks" else value}
    (tmp_path / "pamctl.json").write_text(json.dumps(record))
    with pytest.raises(Refusal, match=field) as refusal:
        read_provenance(tmp_path)
    assert refusal.value.what.isprintable()
    assert len(refusal.value.what) < len(str(tmp_path)) + 300
