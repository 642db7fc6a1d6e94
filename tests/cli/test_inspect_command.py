import json
from pathlib import Path

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.inspect import inspect
from tests.adapter_cases import SIZES, child_of, on_base, random_adapter, saved, write_peft

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first = random_adapter(tasks=("a",), base=on_base("feedc0de"))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1), tmp_path / "second")
    write_peft(tmp_path / "foreign")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: inspect.main(list(arguments), standalone_mode=False))


def test_one_adapter(capsys: Capture) -> None:
    assert run("first") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for shown in ("tiny feedc0de", "tasks        a", "made by      trained", "rank         4", "gate_proj"):
        assert shown in out
    assert not any(module in out for module in SIZES)


def test_tensors_lists_every_module(capsys: Capture) -> None:
    assert run("first", "second", "--tensors") == 0
    out = capsys.readouterr().out
    assert all(out.count(module) == 2 for module in SIZES)


def test_two_adapters(capsys: Capture) -> None:
    assert run("first", "second") == 0
    out = capsys.readouterr().out
    for shown in (
        "cosine",
        "overlap",
        "by chance",
        "all weights counted",
        "start        shared",
        "cross term",
    ):
        assert shown in out


def test_an_adapter_from_elsewhere(capsys: Capture) -> None:
    assert run("foreign", "first") == 0
    out = capsys.readouterr().out
    assert "made by      not pamctl" in out
    assert "format       peft" in out
    assert "scale 2" in out
    assert "factors      do not fit" in out
    assert "only in the second: 3 modules" in out


def test_json(capsys: Capture) -> None:
    assert run("first", "second", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["schema"] == "pamctl.inspect/1"
    assert "modules" not in payload["adapter"]
    assert payload["other"]["share_a_start"] is True
    assert run("first", "--tensors", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["other"] is None
    assert len(payload["adapter"]["modules"]) == 4


def test_json_has_the_keys_that_scripts_rely_on(capsys: Capture) -> None:
    assert run("first", "second", "--tensors", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert set(payload["adapter"]) == {
        *("name", "format", "repository", "commit", "fingerprint", "fingerprint_verified", "base"),
        *("provenance", "parameters", "bytes", "ranks", "scales", "dtypes", "layers", "extras", "notes"),
        *("norm", "effective_rank", "rank_90", "rank_99", "groups", "modules"),
    }
    assert set(payload["adapter"]["modules"][0]) == {
        *("module", "tower", "kind", "layer", "rank", "inputs", "outputs", "dtype", "bytes", "scale"),
        *("norm", "effective_rank", "rank_90", "rank_99", "a_norm", "b_norm"),
    }
    assert set(payload["other"]) == {
        *("name", "fingerprint", "shared_modules", "cosine", "norm_ratio", "overlap_left", "overlap_right"),
        *("delta_signs", "differ_percent", "conflict_percent", "cross_term_error_percent", "share_a_start"),
        *("factor_mismatch", "only_in_first", "only_in_second", "modules"),
    }


def test_without_norms_the_header_is_enough(folder: Path, capsys: Capture) -> None:
    assert run("first", "--no-norms") == 0
    out = capsys.readouterr().out
    assert "(recorded, not verified)" in out
    assert "delta norm" not in out
    assert run("foreign", "--no-norms") == 0
    assert "fingerprint  not computed" in capsys.readouterr().out
    assert run("first", "--no-norms", "--json") == 0
    assert "norm" not in json.loads(capsys.readouterr().out)["adapter"]


def test_target_fails_where_the_adapter_is_not_served_whole(capsys: Capture) -> None:
    assert run("first", "--target", "peft") == 0
    assert capsys.readouterr().out == "first is served whole by peft\n"
    assert run("first", "--target", "mlx") == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "format: first/adapter_model.safetensors" in out
    assert "mend  pamctl convert first -o first-mlx --format mlx" in out
    assert run("first", "--target", "vllm", "--json") == 1
    payload = json.loads(capsys.readouterr().out)
    assert (payload["schema"], payload["served"]) == ("pamctl.serving/1", False)
    assert [finding["rule"] for finding in payload["findings"]] == ["towers"]
    assert run("first", "--target", "vllm", "--server-options", "--enable-tower-connector-lora") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("first", "second", "--target", "vllm"),
        ("first", "second", "--no-norms"),
        ("first", "--server-options", "x"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_usage(arguments: tuple[str, ...], capsys: Capture) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_what_does_not_exist_is_told_in_two_lines(capsys: Capture) -> None:
    assert run("./nothing") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: no adapter at ./nothing: no such file or folder\nHint: ")
    assert err.count("\n") == 2
