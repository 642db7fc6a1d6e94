"""`pamctl convert` as a user types it: every format in, every format out, nothing left half-written."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pamctl.adapters import open_adapter
from pamctl.adapters.matching import brought_together
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from tests.adapter_cases import KEY, random_adapter, same_deltas, saved, write_peft

FIXTURES = Path(__file__).parents[2] / "fixtures" / "adapters"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    saved(random_adapter(tasks=("one",)), tmp_path / "first")
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: pamctl(["convert", *arguments], standalone_mode=False))


@pytest.mark.parametrize("format_", ["peft", "kohya", "diffusers", "mlx", "orbax"])
def test_a_chain_through_a_format_comes_back_as_the_same_adapter(format_: str, capsys: Capture) -> None:
    assert run("first", "-o", "there", "--format", format_) == 0
    assert run("there", "-o", "back", "--names-from", "first") == 0
    assert capsys.readouterr().out == "there\nback\n"
    assert open_adapter("there").origin.format == format_  # type: ignore[union-attr]
    there, first = brought_together([open_adapter("there"), open_adapter("first")])
    same_deltas(there, first)
    assert open_adapter("back").fingerprint == open_adapter("first").fingerprint


@pytest.mark.parametrize("name", json.loads((FIXTURES / "deltas.json").read_text()))
def test_every_stored_adapter_becomes_a_peft_folder_with_the_same_deltas(name: str) -> None:
    source = FIXTURES / name
    assert run(str(source), "-o", "out", "--allow-pickle") == 0
    written, read = open_adapter("out"), open_adapter(source, allow_pickle=True)
    read, written = brought_together([read, written])
    same_deltas(written, read, written.dtype)


def test_json_tells_the_same_in_a_dry_run_and_only_the_real_one_writes(capsys: Capture) -> None:
    assert run("first", "-o", "out", "--dtype", "bf16", "--rank", "2", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not Path("out").exists()
    assert planned["output"] is planned["retained_energy_percent"] is None
    assert run("first", "-o", "out", "--dtype", "bf16", "--rank", "2", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["schema"] == "pamctl.convert/1"
    assert {**done, "output": None, "retained_energy_percent": None} == planned
    assert (done["rank"], done["dtype"]) == (2, "BF16")
    assert 0 < done["retained_energy_percent"] < 100
    written = open_adapter("out")
    assert sum(shape.bytes for shape in written.shapes.values()) == done["bytes"]


@pytest.mark.parametrize("size", [1e-7, 1e-5, 1.0, 6e4])
@pytest.mark.parametrize("factors", [{"lora_alpha": 4}, {"lora_alpha": 1}, {"lora_alpha": 64}])
@pytest.mark.parametrize("flags", ["", "--rank 2"])
def test_without_a_dtype_half_precision_is_not_refused_whatever_the_scale(
    size: float, factors: dict[str, int], flags: str, capsys: Capture
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (4, 16)), size * rng.uniform(-1, 1, (16, 4))
    tensors = {f"{KEY}.lora_A.weight": a.astype("f2"), f"{KEY}.lora_B.weight": b.astype("f2")}
    write_peft(Path("half"), tensors, **factors)
    assert run("half", "-o", "out", "--dry-run", "--json", *flags.split()) == 0
    planned = json.loads(capsys.readouterr().out)
    assert run("half", "-o", "out", *flags.split()) == 0
    assert planned["dtype"] == ("F16" if factors["lora_alpha"] == 4 and not flags else "F32")
    written = open_adapter("out")
    assert sum(shape.bytes for shape in written.shapes.values()) == planned["bytes"]
    assert {shape.dtype for shape in written.shapes.values()} == {planned["dtype"]}
    if not flags:
        assert written.fingerprint == open_adapter("half").fingerprint


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("first -o out.safetensors --format peft", "peft is a folder"),
        ("first -o out.safetensors --format mlx", "mlx is a folder"),
        ("peft-embedding -o out --format kohya", "embedding, for which kohya has no place"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_what_cannot_be_written_is_refused_in_a_dry_run_too(
    arguments: str, told: str, dry: bool, capsys: Capture
) -> None:
    adapter, *others = arguments.split()
    source = adapter if adapter == "first" else str(FIXTURES / adapter)
    assert run(source, *others, *(["--dry-run"] if dry else [])) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert sorted(path.name for path in Path().iterdir()) == ["first"]


def test_a_pickle_is_read_only_when_that_is_asked_for(capsys: Capture) -> None:
    source = str(FIXTURES / "peft-bin")
    assert run(source, "-o", "out") == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert run(source, "-o", "out", "--allow-pickle") == 0


def test_an_adapter_may_replace_itself(capsys: Capture) -> None:
    before = open_adapter("first").fingerprint
    assert run("first", "-o", "first") == 1
    assert "already exists" in capsys.readouterr().err
    assert run("first", "-o", "first", "--force") == 0
    assert open_adapter("first").fingerprint == before


def test_the_same_input_gives_the_same_bytes() -> None:
    for out in ("one", "two"):
        assert run("first", "-o", out, "--compact", "--spelling", "5") == 0
    assert sorted(path.name for path in Path("one").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "pamctl.json",
    ]
    for file in Path("one").iterdir():
        assert file.read_bytes() == (Path("two") / file.name).read_bytes()


def test_help_names_every_format() -> None:
    shown = CliRunner().invoke(pamctl, ["convert", "--help"]).output
    assert all(name in shown for name in ("peft", "kohya", "diffusers", "mlx", "orbax"))
