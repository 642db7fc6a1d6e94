"""The folder of a run: whose sequence it holds, and what has been scored in it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal
from pamctl.sequences.sequence_file import SCHEMA, SequenceFile
from pamctl.training.checkpoints import differences
from pamctl.whole_output import refuse_existing, whole_file

SEQUENCE, REPORT, JOBS = "sequence.json", "report", "jobs"
_GROWING = ("tasks", "orders", "methods")


def open_folder(out: Path, file: SequenceFile, *, force: bool = False) -> None:
    """Make the folder of a run, or go on in one of the same sequence; what is new in it is recorded.

    Raises:
        Refusal: the folder is of something else, or of a sequence that says something else of the same cells.
    """
    refuse_existing(out, force=True)
    record = file.to_json()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / SEQUENCE).is_file():
            raise Refusal(f"{out} exists and is no folder of a run", "choose another output with -o")
        if force:
            shutil.rmtree(out)
        else:
            record = _grown(out, _read(out / SEQUENCE), json.loads(json.dumps(record)))
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    path = out / SEQUENCE
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with whole_file(path, force=True) as draft:
            draft.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema is {record['schema']!r}")
    except (ValueError, KeyError, TypeError) as fault:
        raise Refusal(
            f"{path} is no record of a sequence: {fault}", "choose another output with -o"
        ) from fault
    return dict(record)


def _grown(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The record with what is new; orders, methods and tasks of one name have to be the same."""
    changes = differences({"base": before["base"]}, {"base": now["base"]})
    changes += differences(before["settings"], now["settings"])
    for part in _GROWING:
        for name in before[part].keys() & now[part].keys():
            changes += [f"{name}: {change}" for change in _changes(before[part][name], now[part][name])]
    if changes:
        raise Refusal(
            f"{out} holds another sequence: {'; '.join(sorted(changes))}",
            "choose another output with -o, or add --force to start over",
        )
    return {**now, **{part: {**before[part], **now[part]} for part in _GROWING}}


def _changes(before: Any, now: Any) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            change
            for key in dict.fromkeys((*before, *now))
            for change in (
                differences(before[key], now[key])
                if isinstance(before.get(key), Mapping) and isinstance(now.get(key), Mapping)
                else differences({key: before.get(key)}, {key: now.get(key)})
            )
        ]
    return differences({"tasks": before}, {"tasks": now})
