import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from pamctl.adapters import open_adapter, save_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.module_names import SPELLINGS
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from tests.adapter_cases import KEY, PREFIX, write_peft

ONES = (("A", np.ones((4, 16), np.float32)), ("B", np.ones((16, 4), np.float32)))


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge.main(list(arguments), standalone_mode=False))


Capture = pytest.CaptureFixture[str]


def test_stdout_is_the_path_and_stderr_says_what_was_done_and_why(place: Path, capsys: Capture) -> None:
    assert run("first", "second", "-o", "merged") == 0
    out, err = capsys.readouterr()
    assert out == "merged\n"
    assert "factor space: the adapters share their start" in err
    assert "cross-term error" in err
    assert open_adapter("merged").rank == 4


def test_json_is_one_object_on_stdout(place: Path, capsys: Capture) -> None:
    assert run("first", "other", "-o", "merged", "--rank", "5", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["schema"] == "pamctl.merge/1"
    assert (payload["output"], payload["space"], payload["rank"], payload["compressed"]) == (
        "merged",
        "delta",
        5,
        True,
    )
    assert 0 < payload["retained_energy_percent"] < 100


def test_a_dry_run_decides_and_writes_nothing(place: Path, capsys: Capture) -> None:
    assert run("first", "second", "-o", "merged", "--dry-run") == 0
    assert capsys.readouterr().out == ""
    assert run("first", "second", "-o", "merged", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["output"] is None
    assert not (place / "merged").exists()


def test_an_existing_output_is_refused_without_force(place: Path, capsys: Capture) -> None:
    before = (place / "first" / "adapter_model.safetensors").read_bytes()
    assert run("first", "second", "-o", "first") == 1
    assert capsys.readouterr().err.startswith("Error: first already exists\nHint: ")
    assert (place / "first" / "adapter_model.safetensors").read_bytes() == before
    assert run("first", "second", "-o", "first", "--force") == 0
    assert (place / "first" / "adapter_model.safetensors").read_bytes() != before


def test_weights_are_read_with_commas(place: Path, capsys: Capture) -> None:
    assert run("first", "second", "-o", "merged", "--weights", "1,0") == 0
    assert open_adapter("merged").fingerprint == open_adapter("first").fingerprint


@pytest.mark.parametrize(
    "arguments",
    [
        ["first"],
        ["first", "second", "--weights", "a,b"],
        ["first", "second", "--weights", "1"],
        ["first", "second", "--space", "core"],
        ["first", "second", "--rank", "0"],
        ["first", "second", "--rank", "2", "--space", "factor"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_with_2_and_writes_nothing(
    arguments: list[str], place: Path, capsys: Capture
) -> None:
    assert run(*arguments, "-o", "merged") == 2
    assert not (place / "merged").exists()


def test_a_failure_while_writing_leaves_nothing_behind(place: Path, capsys: Capture) -> None:
    weights = place / "second" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    listing = sorted(os.listdir(place))
    assert run("first", "second", "-o", "merged") == 1
    assert "NaN" in capsys.readouterr().err
    assert sorted(os.listdir(place)) == listing


def in_a_process(code: str) -> Callable[[], subprocess.CompletedProcess[str]]:
    return lambda: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_merge_never_imports_jax(place: Path) -> None:
    code = (
        "import sys; from pamctl.cli.merge import merge; "
        "merge.main(['first', 'second', '-o', 'merged'], standalone_mode=False); "
        "assert not {'jax', 'torch', 'flax'} & set(sys.modules)"
    )
    assert in_a_process(code)().stdout == "merged\n"


def test_the_program_prints_only_the_path(place: Path) -> None:
    command = [sys.executable, "-m", "pamctl", "merge", "first", "second", "-o", "merged"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "merged\n"
    failed = subprocess.run(command, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.count("\n") == 2


def test_the_three_generations_of_a_path_merge_whole_and_stderr_says_so(place: Path, capsys: Capture) -> None:
    for spelling in SPELLINGS:
        (place / spelling).mkdir()
        save_adapter(open_adapter("first"), place / spelling, "peft", WriteOptions(spelling=spelling))
        (place / spelling / "pamctl.json").unlink(missing_ok=True)
    keys = [
        set(safe_open(place / spelling / "adapter_model.safetensors", "np").keys()) for spelling in SPELLINGS
    ]
    assert not set.intersection(*keys)
    assert run(*SPELLINGS, "-o", "merged", "--json") == 0
    out, err = capsys.readouterr()
    for part, spelling in zip(json.loads(out)["coverage"], SPELLINGS, strict=True):
        assert (part["used"], part["in_every_adapter"], part["covered_percent"]) == (4, 4, 100)
        assert f"uses 4 of 4 modules of {spelling}, 100 % of them in every adapter" in err
    assert open_adapter("merged").fingerprint == open_adapter("first").fingerprint


def test_adapters_that_share_no_module_are_refused_with_a_name_of_each(place: Path, capsys: Capture) -> None:
    write_peft(
        place / "bare", {f"base_model.model.model.layers.0.mlp.up_proj.lora_{f}.weight": t for f, t in ONES}
    )
    write_peft(
        place / "unet", {f"base_model.model.down_blocks.0.proj_in.lora_{f}.weight": t for f, t in ONES}
    )
    assert run("bare", "unet", "-o", "merged") == 1
    err = capsys.readouterr().err
    assert "the one adapts model.layers.0.mlp.up_proj, the other down_blocks.0.proj_in" in err
    assert run("first", "bare", "-o", "merged") == 1
    assert "pamctl convert bare -o RENAMED --names-from first" in capsys.readouterr().err
    assert not Path("merged").exists()


def test_full_modules_that_differ_are_refused_until_their_fate_is_chosen(
    tmp_path: Path, capsys: Capture
) -> None:
    folders = []
    for number, name in enumerate(("one", "two")):
        tensors = {f"{KEY}.lora_{factor}.weight": values for factor, values in ONES}
        tensors[f"{PREFIX}score.weight"] = np.full((3, 4), 1 + 2 * number, np.float16)
        folders.append(str(write_peft(tmp_path / name, tensors, modules_to_save=["score"])))
    output = tmp_path / "merged"
    assert run(*folders, "-o", str(output)) == 1
    err = capsys.readouterr().err
    assert "score.weight is a full tensor" in err
    assert "--full-modules first or mean" in err
    assert not output.exists()
    for choice, expected in (("first", 1), ("mean", 2)):
        assert run(*folders, "-o", str(output), "--full-modules", choice, "--json", "--force") == 0
        out, err = capsys.readouterr()
        payload = json.loads(out)
        assert (payload["full_modules"], payload["full_tensors"]) == (choice, 1)
        assert "score.weight" in err
        np.testing.assert_array_equal(open_adapter(output).extras["score.weight"].read(), expected)
