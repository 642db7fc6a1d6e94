"""Scoring an adapter on disk: where its results stand, and what is refused before the work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pamctl.adapters import Adapter, BaseModel, Parent, Provenance, save_adapter
from pamctl.evaluation.results import read_results
from pamctl.evaluation.score import score_adapter
from pamctl.models.base import Base, load_base
from pamctl.models.lora import init_lora, lora_to_adapter
from pamctl.refusal import Refusal, UsageRefusal
from tests.training_cases import TARGETS, write_base, write_task

TOLD = Provenance(
    "merged",
    "merged",
    ("x", "y"),
    (Parent("1" * 64), Parent("2" * 64)),
    None,
    "average",
    {"order": "coin-1"},
    5,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    write_base(folder / "base")
    write_task(folder / "tasks", "red", seed=1)
    write_task(folder / "tasks", "blue", seed=2)
    return folder


@pytest.fixture(scope="module")
def base(place: Path) -> Base:
    return load_base(str(place / "base"))


def adapter_at(folder: Path, base: Base, provenance: Provenance | None) -> str:
    folder.mkdir()
    modules = lora_to_adapter(init_lora(base.config, 2, TARGETS, seed=0), 1.0, base.config)
    save_adapter(Adapter(modules, provenance, None), folder)
    return str(folder)


def tasks_of(place: Path) -> list[Path]:
    return [place / "tasks" / "red.jsonl", place / "tasks" / "blue.jsonl"]


def test_results_stand_where_the_provenance_says(place: Path, base: Base, tmp_path: Path) -> None:
    told = replace(TOLD, base=BaseModel("base", base.fingerprint))
    adapter = adapter_at(tmp_path / "adapter", base, told)
    files = {"results": tmp_path / "r.jsonl", "predictions": tmp_path / "p.jsonl"}
    warned: list[str] = []
    done: list[tuple[int, int, str]] = []
    scored = score_adapter(
        adapter,
        tasks_of(place),
        base=str(place / "base"),
        limit=6,
        warn=warned.append,
        on_examples=lambda *now: done.append(now),
        **files,  # type: ignore[arg-type]
    )
    assert read_results([files["results"]])[0] == scored
    assert [result.task for result in scored] == ["red", "blue"]
    for result in scored:
        assert (result.stage, result.tasks, result.method, result.seed) == (
            "merged",
            ("x", "y"),
            "average",
            5,
        )
        assert (result.order, result.run, result.n) == ("coin-1", None, 6)
        assert result.parents == ("1" * 64, "2" * 64)
        assert result.base == base.fingerprint
    assert done == [(6, 12, "red"), (12, 12, "blue")]
    assert all("same examples" in warning for warning in warned)
    predictions = [json.loads(line) for line in files["predictions"].read_text().splitlines()]
    assert [(p["task"], p["id"]) for p in predictions[::6]] == [("red", "red-0"), ("blue", "blue-0")]
    assert str(tmp_path) not in files["results"].read_text() + files["predictions"].read_text()
    with pytest.raises(Refusal, match="already exists"):
        score_adapter(adapter, tasks_of(place), base=str(place / "base"), predictions=files["predictions"])


def test_an_adapter_without_provenance_counts_as_trained(place: Path, base: Base, tmp_path: Path) -> None:
    adapter = adapter_at(tmp_path / "adapter", base, None)
    warned: list[str] = []
    options = {"base": str(place / "base"), "limit": 2}
    [result] = score_adapter(adapter, tasks_of(place)[:1], warn=warned.append, **options)  # type: ignore[arg-type]
    assert (result.stage, result.tasks, result.method) == ("trained", (), None)
    assert any("no pamctl.json" in warning for warning in warned)
    [labelled] = score_adapter(adapter, tasks_of(place)[:1], stage="merged", run="p=30", **options)  # type: ignore[arg-type]
    assert labelled == replace(result, stage="merged", run="p=30")


def test_what_does_not_belong_together_is_refused(place: Path, base: Base, tmp_path: Path) -> None:
    told = replace(TOLD, base=BaseModel("another", "9" * 64))
    adapter = adapter_at(tmp_path / "adapter", base, told)
    with pytest.raises(Refusal, match=r"was made for base another .* not for base"):
        score_adapter(adapter, tasks_of(place), base=str(place / "base"))
    with pytest.raises(UsageRefusal, match="two tasks are named red"):
        score_adapter(None, tasks_of(place)[:1] * 2, base=str(place / "base"))
    with pytest.raises(UsageRefusal, match="has no split 'val'"):
        score_adapter(None, tasks_of(place), base=str(place / "base"), split="val")
