"""The demo: every method from one first task, resumed where it stopped, the same as its single commands."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.demo import COMMANDS, PLAN, run_demo
from pamctl.evaluation.results import Result, read_results
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.sequences.folder import REPORT
from pamctl.sequences.steps import DIAGNOSTICS, RESULTS
from pamctl.tasks import embedded
from pamctl.tasks.task import Recipe
from tests.in_haste import compiled_in_haste
from tests.training_cases import write_base

WEIGHTS = "adapter_model.safetensors"
CELLS = Path("order-1", "seed-0")


@pytest.fixture(scope="module", autouse=True)
def _small_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched, compiled_in_haste():
        patched.setattr(embedded, "TRAIN_EXAMPLES", 30)
        patched.setattr(embedded, "TEST_EXAMPLES", 8)
        # Fast enough that important signs flip within a few steps, so that PAM is not Average.
        patched.setattr(embedded, "RECIPE", Recipe(steps=9, batch_size=8, learning_rate=0.5, align_every=2))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_base(tmp_path_factory.mktemp("inputs") / "base"))


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def folder(base: str, told: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of three tasks."""
    out = tmp_path_factory.mktemp("demo") / "out"
    run_demo(out, tasks=3, steps=11, base=base, on_work=lambda *work: told.append(work))
    return out


def results_of(folder: Path) -> list[Result]:
    return read_results([folder / RESULTS])[0]


def test_each_method_leaves_its_adapters(folder: Path) -> None:
    found = {str(path.parent.relative_to(folder / CELLS)) for path in folder.rglob(WEIGHTS)}
    second, third = "2-tiny-textvqa", "3-tiny-gqa"
    assert found == {
        "first/1-tiny-scienceqa/trained",
        *(f"finetune/{task}/trained" for task in (second, third)),
        *(
            f"{m}/{task}/{s}"
            for m in ("average", "pam")
            for task in (second, third)
            for s in ("trained", "merged")
        ),
    }
    learned = open_adapter(folder / CELLS / "pam" / third / "merged").provenance
    assert learned is not None
    assert (learned.stage, learned.tasks) == ("merged", ("tiny-scienceqa", "tiny-textvqa", "tiny-gqa"))


def test_every_cell_that_the_metrics_need_is_scored_once(folder: Path) -> None:
    results = results_of(folder)
    assert len({(result.adapter, result.method, result.task) for result in results}) == len(results)
    assert sum(result.stage == "base" for result in results) == 3
    # The base; the first adapter; the states 2 and 3 of each method on three tasks; the trained adapters of
    # average and pam on their own task.
    assert len(results) == 3 + 2 + 3 * 6 + 2 * 2


def test_what_only_diagnostics_need_is_not_made(folder: Path) -> None:
    assert not (folder / DIAGNOSTICS).exists()
    assert not [*folder.rglob("pruned")]


def test_the_report_has_three_whole_sequences(folder: Path) -> None:
    metrics = json.loads((folder / REPORT / "metrics.json").read_text())
    (comparison,) = metrics["comparisons"]
    assert [sequence["method"] for sequence in comparison["sequences"]] == ["average", "finetune", "pam"]
    assert all(None not in sequence["metrics"].values() for sequence in comparison["sequences"])
    assert not any(sequence["missing"] for sequence in comparison["sequences"])
    assert (folder / REPORT / "matrices.png").is_file()


def test_progress_reaches_the_end_and_never_goes_back(told: list[tuple[int, int, str]], folder: Path) -> None:
    assert len({total for _, total, _ in told}) == 1
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1]


def test_run_again_it_keeps_all_and_does_what_is_missing(folder: Path, base: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    shutil.rmtree(out / CELLS / "pam" / "3-tiny-gqa" / "merged")
    shutil.rmtree(out / CELLS / "average" / "3-tiny-gqa")
    kept = (out / CELLS / "pam" / "3-tiny-gqa" / "trained" / WEIGHTS).stat().st_mtime_ns
    lines = (out / RESULTS).read_text().splitlines()
    (out / RESULTS).write_text("\n".join(lines[:-2]) + "\n")
    run_demo(out, tasks=3, steps=11, base=base)
    assert (out / CELLS / "pam" / "3-tiny-gqa" / "trained" / WEIGHTS).stat().st_mtime_ns == kept
    assert (out / RESULTS).read_bytes() == (folder / RESULTS).read_bytes()
    for file in folder.rglob("*.safetensors"):
        assert (out / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_other_options_are_refused_without_force(folder: Path, base: str) -> None:
    with pytest.raises(Refusal, match="steps was 11, is 12"):
        run_demo(folder, tasks=3, steps=12, base=base)


def test_a_damaged_plan_is_refused(tmp_path: Path, base: str) -> None:
    (tmp_path / PLAN).write_text("{")
    with pytest.raises(Refusal, match="is no record of a demo"):
        run_demo(tmp_path, tasks=2, steps=1, base=base)


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path, base: str) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for force in (False, True):
        with pytest.raises(Refusal, match="is no folder of a demo"):
            run_demo(tmp_path, tasks=2, steps=1, base=base, force=force)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    "wrong", [{"tasks": 1}, {"tasks": 7}, {"order": 0}, {"order": 4}, {"steps": 0}, {"seed": -1}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal):
        run_demo(tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_single_commands_make_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = (folder / COMMANDS).read_text()
    commands = [line for line in script.splitlines() if "pamctl " in line and not line.startswith("#")]
    for command in commands:
        words = shlex.split(command.split("|| ")[-1])
        assert exit_code_of(lambda words=words: pamctl(words[1:], standalone_mode=False)) == 0
    for file in (*folder.rglob("*.safetensors"), *folder.rglob("metrics.jsonl")):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes()
    assert {*results_of(tmp_path)} == {*results_of(folder)}


def test_the_command_prints_the_folder_and_the_paper_s_columns(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["demo", "-o", str(out), "--tasks", "2", "--steps", "2", "--base", base]
    assert exit_code_of(lambda: pamctl(given, standalone_mode=False)) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    for word in ("ACC", "BWT", "FWT", "A_t", "A_m", "zero-shot", "after textvqa", str(out / COMMANDS)):
        assert word in told.err
    assert exit_code_of(lambda: pamctl([*given, "--force", "--json"], standalone_mode=False)) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "pamctl.demo/1"
    assert set(record["differ_percent"]) == {"finetune", "average", "pam"}
    assert json.loads((out / PLAN).read_text())["tasks"] == ["tiny-scienceqa", "tiny-textvqa"]


def test_methods_that_made_the_same_adapters_are_told(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["demo", "-o", str(tmp_path / "out"), "--tasks", "2", "--steps", "1", "--base", base]
    assert exit_code_of(lambda: pamctl(given, standalone_mode=False)) == 0
    told = capsys.readouterr().err
    assert "average, pam made the very same adapters in 1 sequence" in told
    rows = [line.split() for line in told.partition("summary")[2].splitlines()]
    average, pam = (next(row for row in rows if row[:1] == [name]) for name in ("average", "pam"))
    assert average[1:] == pam[1:]
