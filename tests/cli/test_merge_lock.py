"""A merge done again from the record of its result: the same bytes, or a refusal that says why not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.adapters import Adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from pamctl.merging.methods import NAMES
from tests.adapter_cases import KEY, PREFIX, random_adapter, random_factors, saved, write_peft
from tests.hub_server import Hub, serve

WEIGHTS = "adapter_model.safetensors"
Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge.main(list(arguments), standalone_mode=False))


def merged(*arguments: str, output: str = "merged") -> Path:
    assert run(*arguments, "-o", output) == 0
    return Path(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def again(*arguments: str, lock: str = "merged/pamctl.json") -> Path:
    return merged("--from-lock", lock, *arguments, output="again")


def refused(capsys: Capture, code: int, told: str, *arguments: str, lock: str = "merged/pamctl.json") -> None:
    """In two lines, and nothing is written."""
    capsys.readouterr()
    listing = sorted(os.listdir())
    assert run("--from-lock", lock, *arguments, "-o", "again") == code
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert error.startswith("Error: ")
    assert told in error
    assert hint.startswith("Hint: ")
    assert sorted(os.listdir()) == listing


@pytest.mark.parametrize("method", NAMES)
def test_every_method_gives_the_same_bytes_again(place: Path, method: str) -> None:
    result = merged("first", "second", "--method", method)
    assert contents(again()) == contents(result)


MERGES = {
    "three unequal shares": "first second other --weights 0.83,0.04,0.25",
    "ties of deltas": "first second --method ties --space delta --density 0.3",
    "ties of factors": "first second --method ties --space factor",
    "random by seed 3": "first other --method dare-ties --seed 3",
    "a seed that nothing draws from": "first other --seed 7",
    "a full SVD": "first other --method ties --svd full --rank 3",
    "an SVD that nothing needs": "first second --svd full",
    "full modules of which there are none": "first second --full-modules first",
    "kohya": "first other --format kohya",
    "kohya in f16, compact": "first other --format kohya --dtype f16 --compact",
    "diffusers": "first other --format diffusers --dtype bf16",
    "f16": "first second --dtype f16",
    "another spelling": "first second --spelling 5",
    "energy": "first other --space delta --energy 0.9 --compact",
    "largest rank": "first other --method linear --rank max",
    "a variant and its settings": "first other --method della --set density=0.5,0.4 --set lambda=0.7",
    "a method inside": "first other --method knots --set inner=dare-ties --seed 3 --set density=0.3,0.6",
}


@pytest.mark.parametrize("command", MERGES.values(), ids=MERGES)
def test_a_merge_is_done_again_to_the_same_bytes(place: Path, command: str) -> None:
    result = merged(*command.split())
    assert contents(again()) == contents(result)


def test_a_recipe_with_rules_is_done_again_to_the_same_bytes(place: Path) -> None:
    Path("recipe.toml").write_text(
        'method = "linear"\nrank = 5\n'
        '[[rules]]\nmodules = "vision*"\nmethod = "dare-ties"\ndensity = [0.5, 0.25]\n'
        '[[rules]]\nmodules = "*proj"\nweights = [2, 1]\nenergy = 0.9\n'
        '[output]\nformat = "kohya"\ndtype = "f16"\n'
    )
    result = merged("first", "other", "--recipe", "recipe.toml", "--seed", "3")
    assert contents(again()) == contents(result)


def test_the_smallest_memory_gives_the_same_bytes(place: Path, capsys: Capture) -> None:
    for seed, name in ((1, "wide"), (2, "far")):
        saved(Adapter({"lm_head": random_factors(seed, 900, 700)}, None, "tiny"), place / name)
    result = merged("wide", "far", "--method", "ties", "--space", "delta")
    assert run("wide", "far", "--method", "ties", "--space", "delta", "-o", "x", "--max-memory", "1K") == 1
    least = capsys.readouterr().err.split()[-1]
    assert contents(again("--max-memory", least)) == contents(result)


def test_full_tensors_meet_the_same_fate_again(place: Path) -> None:
    ones = {f"{KEY}.lora_A.weight": np.ones((4, 16), np.float32)}
    ones[f"{KEY}.lora_B.weight"] = np.ones((16, 4), np.float32)
    for number, name in ((1, "one"), (3, "three")):
        tensors = {**ones, f"{PREFIX}score.weight": np.full((3, 4), number, np.float16)}
        write_peft(place / name, tensors, modules_to_save=["score"])
    result = merged("one", "three", "--full-modules", "mean")
    assert contents(again()) == contents(result)


def test_the_folder_stands_for_its_record(place: Path) -> None:
    result = merged("first", "other")
    assert contents(again(lock="merged")) == contents(result)


def test_a_result_in_one_file_holds_its_record_but_is_no_lock(place: Path, capsys: Capture) -> None:
    merged("first", "other", "--format", "kohya", output="one.safetensors")
    refused(capsys, 2, "one.safetensors is no pamctl.json", lock="one.safetensors")


def test_the_adapters_may_be_given_in_any_order_wherever_they_are(place: Path) -> None:
    result = merged("first", "other", "--method", "nearswap")
    for name in ("first", "other"):
        (place / "elsewhere").mkdir(exist_ok=True)
        Path(name).rename(place / "elsewhere" / f"moved-{name}")
    assert contents(again("elsewhere/moved-other", "elsewhere/moved-first")) == contents(result)


def test_some_adapters_may_be_given_and_the_others_found_beside_the_lock(place: Path) -> None:
    result = merged("first", "other")
    (place / "elsewhere").mkdir()
    Path("first").rename(place / "elsewhere" / "first")
    assert contents(again("elsewhere/first")) == contents(result)


def test_adapters_are_found_beside_the_lock_from_any_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = merged("first", "second")
    (place / "deep").mkdir()
    monkeypatch.chdir(place / "deep")
    assert contents(again(lock="../merged/pamctl.json")) == contents(place / result)


def test_an_adapter_without_a_record_is_found_by_its_weights(place: Path) -> None:
    for name in ("first", "second"):
        (place / name / "pamctl.json").unlink()
    result = merged("first", "second")
    assert contents(again()) == contents(result)


def test_a_converted_input_gives_the_same_weights(place: Path) -> None:
    result = merged("first", "other")
    saved(random_adapter(tasks=("a",)), place / "copy")
    shutil.rmtree("first")
    assert contents(again("copy"))[WEIGHTS] == contents(result)[WEIGHTS]


def test_a_missing_adapter_is_refused_with_the_way_to_name_it(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    shutil.rmtree("other")
    refused(capsys, 1, "names an adapter with the fingerprint")
    refused(capsys, 1, "names an adapter with the fingerprint", "first")


def test_an_adapter_that_changed_beside_its_record_is_refused(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    change("first")
    refused_while_merging(capsys, "first: its weights are not those that its record describes")


def test_an_adapter_that_was_written_anew_is_refused(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    change("first")
    (place / "first" / "pamctl.json").unlink()
    refused(capsys, 1, "names an adapter with the fingerprint")
    refused(capsys, 1, "first is none of the adapters that merged/pamctl.json names", "first", "other")


def change(folder: str) -> None:
    tensors = load_file(f"{folder}/{WEIGHTS}")
    some = min(tensors)
    save_file({**tensors, some: tensors[some] + 1}, f"{folder}/{WEIGHTS}", metadata={"format": "pt"})


def refused_while_merging(capsys: Capture, told: str) -> None:
    """After the lines that say what is being done; nothing stays."""
    listing = sorted(os.listdir())
    capsys.readouterr()
    assert run("--from-lock", "merged/pamctl.json", "-o", "again") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err.splitlines()[-2]
    assert err.splitlines()[-1].startswith("Hint: ")
    assert sorted(os.listdir()) == listing


def test_a_result_that_comes_out_otherwise_is_refused(place: Path, capsys: Capture) -> None:
    """As of a release that computes something else."""
    merged("first", "other")
    record = json.loads(Path("merged/pamctl.json").read_text())
    record["parameters"]["weights"] = [0.25, 0.75]
    Path("merged/pamctl.json").write_text(json.dumps(record))
    refused_while_merging(capsys, f"{record['fingerprint'][:12]} was expected")


def test_one_adapter_more_is_refused(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    refused(capsys, 1, "second is none of the adapters", "first", "other", "second")


OPTIONS = ["--method ties", "--weights 1,1", "--density 0.5", "--set x=1", "--seed 0", "--rank 3"]
OPTIONS += ["--space delta", "--energy 0.9", "--svd full", "--variant paper", "--full-modules first"]
OPTIONS += ["--recipe merged/recipe.toml"]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_recipe_are_refused_beside_a_lock(place: Path, capsys: Capture, option: str) -> None:
    merged("first", "other")
    refused(capsys, 2, "--from-lock decides how to merge", *option.split())


def test_another_format_of_the_same_merge_may_be_asked_for(place: Path) -> None:
    merged("first", "second")
    assert (again("--format", "kohya") / "lora.safetensors").is_file()


def test_what_is_no_record_of_a_merge_is_no_lock(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    refused(capsys, 2, "first/pamctl.json is the record of an adapter that was trained", lock="first")
    refused(capsys, 2, "there is no other/pamctl.json", lock="other")
    refused(capsys, 2, "there is no nowhere/pamctl.json", lock="nowhere/pamctl.json")
    refused(capsys, 2, "merged/recipe.toml is no pamctl.json", lock="merged/recipe.toml")
    Path("merged/pamctl.json").write_text('{"schema"')
    refused(capsys, 1, "merged/pamctl.json")


def test_a_record_of_an_older_merge_is_done_again(place: Path, capsys: Capture) -> None:
    """Before methods had parameters, a record held weights, space and rank, and no versions of numpy."""
    merged("first", "second")
    record = json.loads(Path("merged/pamctl.json").read_text())
    record["parameters"] = {name: record["parameters"][name] for name in ("weights", "space")}
    Path("merged/pamctl.json").write_text(json.dumps(record))
    assert contents(again())[WEIGHTS] == contents(Path("merged"))[WEIGHTS]


def test_a_dry_run_of_a_lock_writes_nothing(place: Path, capsys: Capture) -> None:
    merged("first", "other")
    capsys.readouterr()
    assert run("--from-lock", "merged", "-o", "again", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], told["output"]) == ("average", None)
    assert not Path("again").exists()


@pytest.fixture
def hub(place: Path) -> Iterator[Hub]:
    """A Hub with org/first and org/other, which are not here."""
    with serve() as served:
        for name in ("first", "other"):
            served.repository(f"org/{name}").commit(contents(place / name))
            shutil.rmtree(place / name)
        yield served


def with_hub(hub: Hub, home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the Hub's client reads its settings when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(Path(home).absolute())}
    command = [sys.executable, "-m", "pamctl", "merge", *arguments]
    return subprocess.run(
        command, env=environment | {"HF_HUB_DISABLE_XET": "1"}, capture_output=True, text=True
    )


def test_parents_from_the_hub_are_fetched_at_their_commits(hub: Hub) -> None:
    done = with_hub(hub, "home", "hf://org/first", "hf://org/other", "-o", "merged")
    assert done.returncode == 0, done.stderr
    result = contents(Path("merged"))
    commit = hub.repository("org/other").references["main"]
    moved = {**hub.repository("org/other").commits[commit], "adapter_config.json": b"{}"}
    hub.repository("org/other").commit(moved)
    done = with_hub(hub, "another-home", "--from-lock", "merged", "-o", "again")
    assert (done.returncode, done.stdout) == (0, "again\n"), done.stderr
    assert contents(Path("again")) == result
    assert hub.asked("GET", f"/resolve/{commit}/{WEIGHTS}")


def test_a_parent_that_is_gone_from_the_hub_may_be_given_or_lie_beside(hub: Hub, place: Path) -> None:
    done = with_hub(hub, "home", "hf://org/first", "hf://org/other", "-o", "merged")
    assert done.returncode == 0, done.stderr
    result = contents(Path("merged"))
    files = {}
    for name in ("first", "other"):
        repository = hub.repositories.pop(f"org/{name}")
        files[name] = repository.commits[repository.references["main"]]
    for where in ("given", "."):
        for name, held in files.items():
            (place / where / name).mkdir(parents=True)
            for file, content in held.items():
                (place / where / name / file).write_bytes(content)
        given = [f"given/{name}" for name in files] if where == "given" else []
        done = with_hub(hub, "another-home", "--from-lock", "merged", *given, "-o", f"again-{where}")
        assert done.returncode == 0, done.stderr
        again = contents(Path(f"again-{where}"))
        assert again[WEIGHTS] == result[WEIGHTS]
