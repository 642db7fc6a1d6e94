"""Scoring an adapter on disk: where its results stand, and what is refused before the work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import Adapter, BaseModel, Parent, Provenance, save_adapter
from pamctl.evaluation import score
from pamctl.evaluation.predictions import read_predictions
from pamctl.evaluation.results import Result, append_results, read_results
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
    files: dict[str, Any] = {"results": tmp_path / "r.jsonl", "predictions": tmp_path / "p.jsonl"}
    warned: list[str] = []
    done: list[tuple[int, int, str]] = []
    scored = score_adapter(
        adapter,
        tasks_of(place),
        base=str(place / "base"),
        limit=6,
        warn=warned.append,
        on_examples=lambda *now: done.append(now),
        **files,
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
    predictions = read_predictions(files["predictions"])[0]
    assert [(p.task, p.id) for p in predictions[::6]] == [("red", "red-0"), ("blue", "blue-0")]
    for one in predictions:
        assert (one.split, one.metric, one.type) == ("test", "exact", None)
        assert (one.stage, one.tasks, one.method, one.seed) == ("merged", ("x", "y"), "average", 5)
        assert (one.order, one.run, one.adapter) == ("coin-1", None, scored[0].adapter)
        assert (one.parents, one.base) == (scored[0].parents, base.fingerprint)
    assert str(tmp_path) not in files["results"].read_text() + files["predictions"].read_text()
    with pytest.raises(Refusal, match="already exists"):
        score_adapter(adapter, tasks_of(place), base=str(place / "base"), predictions=files["predictions"])


def test_what_a_results_file_holds_is_not_evaluated_again(
    place: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, file = adapter_at(tmp_path / "adapter", base, TOLD), tmp_path / "r.jsonl"
    decoded: list[str] = []
    told: list[str] = []

    def given(which: str | None = adapter, **more: Any) -> list[Result]:
        decoded.clear()
        told.clear()
        options: dict[str, Any] = {
            "base": str(place / "base"),
            "limit": 2,
            "results": file,
            "report": told.append,
        }
        return score_adapter(which, tasks_of(place), **options | more)

    evaluated = score.evaluate
    monkeypatch.setattr(
        score, "evaluate", lambda *all, **how: decoded.append(all[3].name) or evaluated(*all, **how)
    )
    first = given()
    assert decoded == ["red", "blue"]
    append_results(file, [replace(first[1], score=99.0), replace(first[1], score=77.0, metric="vqa")])
    file.write_text('{"schema": "pamctl.diagnostics/1", "n": 1}\n' + file.read_text())
    with monkeypatch.context() as patched:
        patched.setattr(score, "load_base", None)
        assert given() == [first[0], replace(first[1], score=99.0)]  # the last one of equals
    assert (decoded, len(told)) == ([], 2)
    assert told[1] == f"blue: 99.00 % is in {file} already; --force evaluates it again"
    lines = len(file.read_text().splitlines())
    others: list[dict[str, Any]] = [{"limit": 3}, {"run": "p=30"}, {"order": "one"}, {"stage": "trained"}]
    for other in (*others, {"which": None}):
        given(**other)
        assert (decoded, told) == (["red", "blue"], [])
        lines += 2
        assert len(file.read_text().splitlines()) == lines
    with monkeypatch.context() as patched:
        patched.setattr(score, "load_base", None)
        given(which=None)
    assert given(force=True) == first
    assert decoded == ["red", "blue"]
    assert len(file.read_text().splitlines()) == lines + 2
    assert given() == first
    # Predictions are whole, so all is evaluated for them; what comes out as before is not appended again.
    given(predictions=tmp_path / "p.jsonl")
    assert decoded == ["red", "blue"]
    assert len(file.read_text().splitlines()) == lines + 2
    assert len(read_predictions(tmp_path / "p.jsonl")[0]) == 4


def test_an_adapter_that_two_methods_made_is_evaluated_once_and_recorded_for_each(
    place: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"base": str(place / "base"), "limit": 2, "results": tmp_path / "r.jsonl"}
    one, other = (
        adapter_at(tmp_path / method, base, replace(TOLD, method=method)) for method in ("average", "pam")
    )
    [first] = score_adapter(one, tasks_of(place)[:1], **options)
    monkeypatch.setattr(score, "load_base", None)
    for _ in range(2):
        [second] = score_adapter(other, tasks_of(place)[:1], **options)
        assert second == replace(first, method="pam")
        assert read_results([tmp_path / "r.jsonl"])[0] == [first, second]


def test_one_task_more_evaluates_that_one(place: Path, base: Base, tmp_path: Path) -> None:
    options: dict[str, Any] = {"base": str(place / "base"), "limit": 2, "results": tmp_path / "r.jsonl"}
    [red] = score_adapter(None, tasks_of(place)[:1], **options)
    done: list[tuple[int, int, str]] = []
    both = score_adapter(None, tasks_of(place), on_examples=lambda *now: done.append(now), **options)
    assert (both[0], done) == (red, [(2, 2, "blue")])
    assert read_results([tmp_path / "r.jsonl"])[0] == both


def test_a_results_file_at_fault_is_told_before_the_work(place: Path, tmp_path: Path) -> None:
    file, warned = tmp_path / "r.jsonl", list[str]()
    options: dict[str, Any] = {"base": str(place / "base"), "limit": 2, "results": file}
    file.write_text('{"task": "red", "stage": "ba')
    score_adapter(None, tasks_of(place)[:1], warn=warned.append, **options)
    assert f"{file} line 1 was left torn by a stopped writer and is skipped" in warned
    file.write_text('{"task": "red"}\n')
    with pytest.raises(Refusal, match="line 1: `stage` is missing"):
        score_adapter(None, tasks_of(place)[:1], **options)


def test_a_file_of_predictions_takes_no_results_and_nothing_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"schema": "pamctl.prediction/1"}\n')
    with pytest.raises(UsageRefusal, match=r"p\.jsonl holds predictions, not results"):
        score_adapter("no adapter", ["no task"], results=file)
    assert len(file.read_text().splitlines()) == 1


def test_a_stopped_evaluation_leaves_no_predictions(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, out = score.evaluate, tmp_path / "out"

    def stopped_at_blue(*given: Any, **how: Any) -> Any:
        if given[3].name == "blue":
            raise KeyboardInterrupt
        return evaluated(*given, **how)

    monkeypatch.setattr(score, "evaluate", stopped_at_blue)
    options = {"results": out / "r.jsonl", "predictions": out / "p.jsonl", "base": str(place / "base")}
    with pytest.raises(KeyboardInterrupt):
        score_adapter(None, tasks_of(place), limit=2, **options)
    assert [file.name for file in out.iterdir()] == ["r.jsonl"]
    assert [result.task for result in read_results([out / "r.jsonl"])[0]] == ["red"]


def test_an_adapter_without_provenance_counts_as_trained(place: Path, base: Base, tmp_path: Path) -> None:
    adapter = adapter_at(tmp_path / "adapter", base, None)
    warned: list[str] = []
    options: dict[str, Any] = {"base": str(place / "base"), "limit": 2}
    [result] = score_adapter(adapter, tasks_of(place)[:1], warn=warned.append, **options)
    assert (result.stage, result.tasks, result.method) == ("trained", (), None)
    assert any("no pamctl.json" in warning for warning in warned)
    [labelled] = score_adapter(adapter, tasks_of(place)[:1], stage="merged", run="p=30", **options)
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
