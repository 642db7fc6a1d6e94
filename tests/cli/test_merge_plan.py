"""What a merge will do, told before it does anything: `--dry-run`, and what does not fit into memory."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from tests.adapter_cases import SIZES, child_of, random_adapter, random_factors, saved

WEIGHTS = "adapter_model.safetensors"
WIDE = "lm_head"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working one, with `first`, `second`, trained from it, and `other` of rank 6."""
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1, tasks=("a", "b")), tmp_path / "second")
    saved(random_adapter(2, rank=6, tasks=("c",)), tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wide(place: Path) -> Path:
    """With `wide` and `far`, whose one module has a delta of 1000 x 500."""
    for seed, name in ((1, "wide"), (2, "far")):
        factors = {WIDE: random_factors(seed, 500, 1000, 32)}
        saved(Adapter(factors, random_adapter(tasks=(name,)).provenance, "tiny"), place / name)
    return place


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge.main(list(arguments), standalone_mode=False))


def planned(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `--dry-run --json` prints, and nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    capsys.readouterr()
    assert run(*arguments, "-o", "merged", "--dry-run", "--json") == code
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    payload: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert payload["schema"] == "pamctl.merge/1"
    assert payload["output"] is None
    return payload


def spoil(folder: str) -> None:
    """Make every number in a folder's tensors NaN: whoever reads one refuses it."""
    file = Path(folder) / WEIGHTS
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    file.write_bytes(data[:start] + np.full((len(data) - start) // 4, np.nan, "<f4").tobytes())


UNREAD = [
    "",
    "--space factor",
    "--method ties --space factor",
    "--method ties --density 0.3",
    "--method dare-ties --seed 3",
    "--method linear --rank 3",
    "--method linear --energy 0.9",
    "--method core --rank 8",
    "--space delta --energy 0.9",
]


@pytest.mark.parametrize("options", UNREAD)
def test_no_number_is_read_where_records_decide(place: Path, capsys: Capture, options: str) -> None:
    spoil("first")
    spoil("second")
    told = planned(capsys, "first", "second", *options.split())
    assert told["refusals"] == []
    assert run("first", "second", *options.split(), "-o", "merged") == 1, "numbers are read by the merge"
    assert "NaN or Inf" in capsys.readouterr().err
    assert not Path("merged").exists()


def test_numbers_are_read_where_a_decision_hangs_on_them(place: Path, capsys: Capture) -> None:
    saved(random_adapter(5, tasks=("d",)), place / "stranger")
    assert planned(capsys, "first", "stranger")["cross_term_error_percent"] > 1
    spoil("stranger")
    told = planned(capsys, "first", "stranger", code=1)
    assert "NaN or Inf" in told["refusals"][0]["what"]


def test_the_plan_lists_modules_methods_ranks_and_bytes(place: Path, capsys: Capture) -> None:
    Path("recipe.toml").write_text('method = "linear"\n[[rules]]\nmodules = "vision*"\nmethod = "ties"\n')
    told = planned(capsys, "first", "other", "--recipe", "recipe.toml")
    assert [part["module"] for part in told["plan"]] == sorted(SIZES)
    for part in told["plan"]:
        inputs, outputs = SIZES[part["module"]]
        by_rule = part["module"].startswith("vision")
        rank = 6 if by_rule else 10
        assert (part["method"], part["space"]) == ("ties" if by_rule else "linear", "delta")
        assert (part["ranks"], part["rank"]) == ([4, 6], rank)
        assert part["bytes"] == 4 * rank * (inputs + outputs)
        assert part["memory"] > part["bytes"]
    assert told["bytes_in"] == 4 * (4 + 6) * sum(map(sum, SIZES.values()))
    assert told["peak_memory"] > 100 << 20
    assert (told["modules"], told["rank"], told["dtype"]) == (4, 10, "F32")


def test_an_adapter_without_a_module_has_rank_0_there(place: Path, capsys: Capture) -> None:
    module = min(SIZES)
    saved(Adapter({module: random_adapter(7).modules[module]}, None, "tiny"), place / "one")
    told = planned(capsys, "first", "one", "--method", "linear")
    assert {part["module"]: part["ranks"] for part in told["plan"]} == {
        name: [4, 4 if name == module else 0] for name in SIZES
    }
    assert [part["covered_percent"] for part in told["coverage"]] == [25, 100]
    assert any("3 modules of first" in note for note in told["notes"])


def test_what_is_planned_is_what_is_done(place: Path, capsys: Capture) -> None:
    options = ["first", "other", "--method", "ties", "--rank", "3", "--dtype", "f16"]
    told = planned(capsys, *options)
    assert run(*options, "-o", "merged", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    measured = {"output", "retained_energy_percent", "sign_conflict_percent", "cross_term_error_percent"}
    assert {name: value for name, value in done.items() if name not in measured} == {
        name: value for name, value in told.items() if name not in measured
    }
    merged = open_adapter("merged")
    assert (len(merged.shapes), merged.rank, merged.dtype) == (told["modules"], told["rank"], told["dtype"])
    assert sum(shape.bytes for shape in merged.shapes.values()) == told["bytes"]


def test_a_dry_run_without_json_speaks_on_stderr_alone(place: Path, capsys: Capture) -> None:
    assert run("first", "other", "-o", "merged", "--method", "ties", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"ties of 2 adapters, .* 4 modules, rank 6, .* MiB of memory", err)
    assert "delta space: " in err


REFUSED = {
    "an output that is there": ("first other -o first", 1, "first already exists"),
    "a missing adapter": ("first nowhere", 1, "no adapter at nowhere"),
    "a wrong parameter": ("first other --method ties --density 2", 2, "density of ties is 2.0"),
    "factors that do not fit": ("first other --space factor", 1, "has rank 4 in first and 6 in other"),
    "a rank of factors": ("first second --space factor --rank 2", 2, "merged factors have rank 4"),
    "a file for a folder": ("first other -o one.safetensors", 2, "peft is a folder"),
    "too little memory": ("first other --max-memory 1K", 1, "more than the 0 MiB of --max-memory"),
}


@pytest.mark.parametrize(("command", "code", "told"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_refused_is_told_in_json_too(
    place: Path, capsys: Capture, command: str, code: int, told: str
) -> None:
    arguments = command.split()
    output = [] if "-o" in arguments else ["-o", "merged"]
    assert run(*arguments, *output, "--dry-run", "--json") == code
    out, err = capsys.readouterr()
    payload = json.loads(out)
    (refusal,) = payload["refusals"]
    assert payload["output"] is None
    assert told in refusal["what"]
    assert refusal["way_on"]
    *_, error, hint = err.splitlines()
    assert (error, hint) == (f"Error: {refusal['what']}", f"Hint: {refusal['way_on']}")
    assert not Path("merged").exists()


def test_a_refusal_in_json_without_a_dry_run_leaves_stdout_empty(place: Path, capsys: Capture) -> None:
    assert run("first", "nowhere", "-o", "merged", "--json") == 1
    assert capsys.readouterr().out == ""


BOUNDED = [
    "--space factor",
    "--space delta",
    "--method ties --space factor",
    "--method ties --space delta",
    "--method linear --rank 16",
    "--method slerp",
    "--method knots",
    "--method core",
    "--method ties --svd full",
]


@pytest.mark.parametrize("options", BOUNDED)
def test_too_small_a_bound_is_refused_with_the_least_that_will_do(
    wide: Path, capsys: Capture, options: str
) -> None:
    arguments = ["wide", "far", *options.split()]
    refusal = planned(capsys, *arguments, "--max-memory", "1M", code=1)["refusals"][0]
    assert f"{WIDE} takes " in refusal["what"]
    assert "more than the 1 MiB of --max-memory" in refusal["what"]
    (least,) = re.findall(r"--max-memory (\d+)M", refusal["way_on"])
    told = planned(capsys, *arguments, "--max-memory", f"{least}M")
    assert told["plan"][0]["memory"] <= int(least) << 20
    below = planned(capsys, *arguments, "--max-memory", f"{int(least) - 1}M", code=1)
    assert below["refusals"][0]["way_on"] == refusal["way_on"]
    assert run(*arguments, "-o", "merged", "--max-memory", f"{least}M") == 0


def test_the_way_that_takes_more_memory_is_taken_where_there_is_enough(wide: Path, capsys: Capture) -> None:
    arguments = ["wide", "far", "--method", "ties", "--space", "delta"]
    (ample,) = planned(capsys, *arguments)["plan"]
    refusal = planned(capsys, *arguments, "--max-memory", "1M", code=1)["refusals"][0]
    (least,) = re.findall(r"--max-memory (\d+M)", refusal["way_on"])
    (tight,) = planned(capsys, *arguments, "--max-memory", least)["plan"]
    assert ample["memory"] - tight["memory"] == 4 * 500 * 1000, "the dense delta"


@pytest.mark.parametrize("size", ["512M", "0.5G", "524288K", "536870912", "512MiB"])
def test_a_size_may_be_written_in_any_unit(place: Path, capsys: Capture, size: str) -> None:
    assert planned(capsys, "first", "other", "--max-memory", size) == planned(capsys, "first", "other")


@pytest.mark.parametrize("size", ["much", "-1M", "1X", ""])
def test_what_is_no_size_is_a_wrong_call(place: Path, capsys: Capture, size: str) -> None:
    assert run("first", "other", "-o", "merged", "--max-memory", size) == 2
    assert "is not a size, as 512M or 2G" in capsys.readouterr().err
