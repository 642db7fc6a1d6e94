"""The folder of a run: a record of what is learned in it decides whether another run may go on there."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal
from pamctl.sequences.contents import SCHEMA, SequenceFile
from pamctl.training.checkpoints import differences
from pamctl.whole_output import refuse_existing, whole_file

SEQUENCE, REPORT, JOBS = "sequence.json", "report", "jobs"
_ELSEWHERE = "choose another output with -o"
_OVER = f"{_ELSEWHERE}, or add --force to start over"
_GROWING = ("tasks", "orders", "methods")


def open_folder(out: Path, file: SequenceFile, *, force: bool = False) -> None:
    """Make the folder of a run, or go on in one of the same sequence; what is new in it is recorded.

    Raises:
        Refusal: the folder is of something else, or of a sequence that says something else of the same cells.
    """
    now = json.loads(json.dumps(file.to_json()))
    before = record_in(out, SEQUENCE, SCHEMA, "run", force=force)
    if before is not None:
        refuse_changes(out, "another sequence", _changes_of_sequence(before, now))
        now |= {part: {**before[part], **now[part]} for part in _GROWING}
    write_record(out / SEQUENCE, now)


def record_in(out: Path, name: str, schema: str, whose: str, *, force: bool) -> dict[str, Any] | None:
    """Return the record of a folder to go on in; None for a new one, or one that `force` has emptied.

    Args:
        name: of the record's file.
        whose: folder this has to be, for messages: a "run"'s or the like.

    Raises:
        Refusal: the folder is of something else.
    """
    refuse_existing(out, force=True)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / name).is_file():
        raise Refusal(f"{out} exists and is no folder of a {whose}", _ELSEWHERE)
    if force:
        shutil.rmtree(out)
        return None
    return _read(out / name, schema, whose)


def refuse_changes(out: Path, what: str, changes: Sequence[str]) -> None:
    """Refuse to go on in a folder whose record says otherwise."""
    if changes:
        raise Refusal(f"{out} holds {what}: {'; '.join(changes)}", _OVER)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, unless it is there as it is."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with whole_file(path, force=True) as draft:
            draft.write_text(text, encoding="utf-8")


def _read(path: Path, schema: str, whose: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != schema:
            raise ValueError(f"schema is {record['schema']!r}")
    except (ValueError, KeyError, TypeError) as fault:
        raise Refusal(f"{path} is no record of a {whose}: {fault}", _OVER) from fault
    return dict(record)


def _changes_of_sequence(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same; of orders, methods and tasks those that both have are compared."""
    changes = differences({"base": before["base"]}, {"base": now["base"]})
    changes += differences(before["settings"], now["settings"])
    for part in _GROWING:
        for name in before[part].keys() & now[part].keys():
            changes += [f"{name}: {change}" for change in _changes(before[part][name], now[part][name])]
    return sorted(changes)


def _changes(before: Any, now: Any) -> list[str]:
    """What is not the same in two tables, or two lists of tasks; tables in tables are compared key by key."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return differences({"tasks": before}, {"tasks": now})
    changes = []
    for key in dict.fromkeys((*before, *now)):
        then, after = before.get(key), now.get(key)
        if isinstance(then, Mapping) and isinstance(after, Mapping):
            changes += differences(then, after)
        else:
            changes += differences({key: then}, {key: after})
    return changes
