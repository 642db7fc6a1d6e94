"""`pamctl convert-base` as a user types it: a base in, a Hugging Face folder out, or nothing."""

import json
import os
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from pamctl.adapters import Adapter, BaseModel, Provenance, save_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.models.base import Base, fingerprint_of, load_base
from pamctl.models.checkpoint import EMBEDDED, open_checkpoint
from pamctl.models.leaves import canonical_name
from pamctl.models.lora import adaptable, lora_from_adapter
from pamctl.models.paligemma import Lora, forward_logits, image_features
from pamctl.models.text import text_batch
from tests.adapter_cases import random_factors
from tests.training_cases import CONFIG, write_base

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: pamctl(["convert-base", *arguments], standalone_mode=False))


def weights(folder: str) -> dict[str, np.ndarray]:
    return {
        name: tensor
        for file in Path(folder).glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize("size", ["5GB", "2K", "1"])
def test_what_is_written_is_the_same_base_bit_for_bit(size: str, capsys: Capture) -> None:
    assert run("base", "-o", "out", "--max-shard-size", size) == 0
    assert capsys.readouterr().out == "out\n"
    before, after = load_base("base"), load_base("out")
    jax.tree.map(np.testing.assert_array_equal, after.parameters, before.parameters)
    assert after.fingerprint == before.fingerprint
    assert (after.dtype, after.lora_defaults) == (before.dtype, before.lora_defaults)


def test_shards_are_no_larger_than_asked_and_hold_each_tensor_once() -> None:
    assert run("base", "-o", "out", "--max-shard-size", "2K") == 0
    index = json.loads(Path("out/model.safetensors.index.json").read_text())
    held = {file.name: load_file(file) for file in Path("out").glob("*.safetensors")}
    assert {name: file for file, tensors in held.items() for name in tensors} == index["weight_map"]
    assert sorted(held) == [f"model-{n:05}-of-{len(held):05}.safetensors" for n in range(1, len(held) + 1)]
    assert len(held) > 2
    assert all(sum(tensor.nbytes for tensor in tensors.values()) <= 2048 for tensors in held.values())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights("base").values())


@pytest.mark.parametrize(("dtype", "numpy"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
def test_numbers_are_rounded_to_the_dtype_asked_for(dtype: str, numpy: type) -> None:
    assert run("base", "-o", "out", "--dtype", dtype) == 0
    before, after = weights("base"), weights("out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == numpy
        np.testing.assert_array_equal(after[name], tensor.astype(numpy))


def test_json_tells_the_same_in_a_dry_run_and_only_the_real_one_writes(capsys: Capture) -> None:
    assert run("base", "-o", "out", "--dtype", "bf16", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not Path("out").exists()
    assert run("base", "-o", "out", "--dtype", "bf16", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["schema"] == "pamctl.convert-base/1"
    assert planned == {**done, "output": None}
    assert done["dtypes"] == ["bf16"]
    assert done["bytes"] == sum(tensor.nbytes for tensor in weights("out").values())
    assert done["tensors"] == len(weights("out"))
    assert done["files"] == ["model.safetensors"]


def test_an_output_is_replaced_only_by_force_and_only_if_it_is_one(capsys: Capture) -> None:
    assert run("base", "-o", "out", "--max-shard-size", "1K") == 0
    assert run("base", "-o", "out") == 1
    assert "already exists" in capsys.readouterr().err
    assert run("base", "-o", "out", "--force") == 0
    assert [file.name for file in Path("out").glob("*.safetensors")] == ["model.safetensors"]
    Path("out/thesis.pdf").write_text("years of work")
    assert run("base", "-o", "out", "--force") == 1
    assert "holds thesis.pdf" in capsys.readouterr().err


def test_a_base_may_replace_itself() -> None:
    before = load_base("base").fingerprint
    assert run("base", "-o", "base", "--force", "--max-shard-size", "1K") == 0
    assert load_base("base").fingerprint == before


def test_a_fault_on_the_way_leaves_nothing(capsys: Capture) -> None:
    stored = open_checkpoint("base")
    last = stored.weights.groups[-1][-1].tensors[-1][0]
    file = Path("base/model.safetensors")
    raw = bytearray(file.read_bytes())
    tensors = {"".join(name.split(".vision_model")): name for name in load_file(file)}
    entry = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])[tensors[last.name(0)]]
    at = 8 + int.from_bytes(raw[:8], "little") + entry["data_offsets"][0]
    raw[at : at + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(raw)
    assert run("base", "-o", "out") == 1
    assert f"{tensors[last.name(0)]} holds NaN or Inf" in capsys.readouterr().err
    assert os.listdir() == ["base"]


def test_what_is_beside_the_weights_is_copied_or_made() -> None:
    assert run("tiny", "-o", "out") == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "lora.json"):
        stored = open_checkpoint().folder / name
        assert Path("out", name).read_bytes() == stored.read_bytes()
    assert load_base("out").fingerprint == load_base(EMBEDDED).fingerprint
    assert run("base", "-o", "other") == 0
    assert json.loads(Path("other/tokenizer_config.json").read_text())["pad_token"] == "<pad>"


def test_the_same_input_gives_the_same_bytes() -> None:
    for out in ("one", "two"):
        assert run("base", "-o", out, "--max-shard-size", "2K") == 0
    for file in Path("one").iterdir():
        assert file.read_bytes() == (Path("two") / file.name).read_bytes()


def test_no_base_is_refused(capsys: Capture) -> None:
    assert run("nowhere", "-o", "out") == 1
    assert "no base model at nowhere" in capsys.readouterr().err


def write_adapter(folder: str, base: str | None, scale: float = 0.0625, modules: str = "") -> Adapter:
    """Random factors of every projection of the base, or of one, with `base` as the fingerprint of theirs."""
    factors = {
        module: random_factors(number, kind.inputs, kind.outputs, rank=2, scale=scale)
        for number, kind in enumerate(adaptable(CONFIG))
        for module in kind.modules()
        if modules in module
    }
    record = Provenance("trained", "trained", tasks=("a",), base=BaseModel("base", base))
    adapter = Adapter(factors, record, "base")
    Path(folder).mkdir()
    save_adapter(adapter, Path(folder))
    return adapter


def logits(base: Base, lora: Lora) -> np.ndarray:
    batch = text_batch([([2, 9, 8, 5], [7, 1]), ([2, 5], [1, 0])], text_length=7)
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8, 3)).astype(np.float32)
    seen = image_features(base.config, base.parameters, lora, 1.0, pixels)
    return np.asarray(forward_logits(base.config, base.parameters, lora, 1.0, seen, batch))


def test_a_folded_base_answers_as_the_base_with_the_adapter(capsys: Capture) -> None:
    base = load_base("base")
    adapter = write_adapter("adapter", base.fingerprint)
    assert run("base", "-o", "out", "--fold", "adapter", "--max-shard-size", "2K") == 0
    assert "with adapter folded in" in capsys.readouterr().err
    folded = load_base("out")
    together = logits(base, lora_from_adapter(adapter, base.config))
    np.testing.assert_allclose(logits(folded, {}), together, atol=1e-5)
    assert np.abs(logits(base, {}) - together).max() > 0.01
    assert folded.fingerprint != base.fingerprint
    assert folded.fingerprint == fingerprint_of(open_checkpoint("out"))


def test_folding_is_in_float32_and_rounded_once() -> None:
    assert run("base", "-o", "low", "--dtype", "bf16") == 0
    before = weights("low")
    adapter = write_adapter("of-low", load_base("low").fingerprint, modules="q_proj")
    assert run("low", "-o", "out", "--fold", "of-low") == 0
    after = weights("out")
    adapted = {f"{module}.weight" for module in adapter.shapes}
    for name, tensor in before.items():
        canonical, expected = canonical_name(name) or "", tensor
        if canonical in adapted:
            factors = adapter.modules[canonical.removesuffix(".weight")].folded()
            expected = (tensor.astype(np.float32) + factors.b @ factors.a).astype(ml_dtypes.bfloat16)
            assert not np.array_equal(expected, tensor)
        np.testing.assert_array_equal(after[name], expected)
    assert len(adapted) == len([name for name in before if "q_proj.weight" in name])


def test_json_names_what_was_folded_in(capsys: Capture) -> None:
    adapter = write_adapter("adapter", load_base("base").fingerprint)
    assert run("base", "-o", "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["folded"] is None
    assert run("base", "-o", "folded", "--fold", "adapter", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["folded"] == adapter.fingerprint
    assert not Path("folded").exists()


def refused(capsys: Capture, *arguments: str) -> str:
    """The two lines of a refusal, after which there is no output."""
    assert run(*arguments, "-o", "out") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert not Path("out").exists()
    return err


def test_an_adapter_of_another_base_is_not_folded(capsys: Capture) -> None:
    write_base(Path("other"), seed=1)
    write_adapter("hers", load_base("other").fingerprint)
    assert "hers was made for base base (" in refused(capsys, "base", "--fold", "hers")
    unknown = Adapter({"language_model.layers.7.mlp.up_proj": random_factors(0, 12, 16)})
    Path("deeper").mkdir()
    save_adapter(unknown, Path("deeper"))
    assert "layers.7.mlp.up_proj, which this base does not" in refused(capsys, "base", "--fold", "deeper")


def test_an_adapter_whose_base_is_not_recorded_is_folded_where_it_fits() -> None:
    write_adapter("adapter", None, modules="q_proj")
    assert run("base", "-o", "out", "--fold", "adapter") == 0
    assert load_base("out").fingerprint != load_base("base").fingerprint


def test_a_changed_adapter_is_not_folded(capsys: Capture) -> None:
    write_adapter("adapter", load_base("base").fingerprint)
    file = Path("adapter/adapter_model.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-4:] = np.float32(1).tobytes()
    file.write_bytes(raw)
    assert "not those that its record describes" in refused(capsys, "base", "--fold", "adapter")
