import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING, Layer
from pamctl.adapters.formats.written import WriteOptions
from pamctl.refusal import Refusal
from tests.adapter_cases import (
    SIZES,
    adapters,
    delta,
    random_adapter,
    random_factors,
    same_deltas,
    write_peft,
)

PATH = "model.layers.0.self_attn.q_proj"
A, B = f"{PATH}.lora_a", f"{PATH}.lora_b"
PARAMETERS = {"rank": 2, "scale": 10.0, "dropout": 0.0}


def pair(inputs: int = 3, rank: int = 2, outputs: int = 4) -> dict[str, np.ndarray]:
    a = np.arange(inputs * rank, dtype=np.float32).reshape(inputs, rank)
    return {A: a, B: 1 + np.arange(rank * outputs, dtype=np.float32).reshape(rank, outputs)}


def write_mlx(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    """A folder as mlx-lm writes it; a field given as None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pair() if tensors is None else tensors, folder / "adapters.safetensors")
    fields = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": PARAMETERS, **config}
    fields = {name: value for name, value in fields.items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def converted(adapter: Adapter, folder: Path, format: str = "mlx", **options: Any) -> Adapter:
    folder.mkdir()
    save_adapter(adapter, folder, format, WriteOptions(**options))
    return open_adapter(folder)


def test_a_file_of_mlx_lm_is_read_with_the_delta_computed_by_hand(tmp_path: Path) -> None:
    found = open_adapter(write_mlx(tmp_path, model="mlx-community/a-model"))
    assert found.origin is not None
    assert found.origin.format == "mlx"
    assert found.base_model == "mlx-community/a-model"
    # a = [[0, 1], [2, 3], [4, 5]], b = [[1, 2, 3, 4], [5, 6, 7, 8]]: 10 (a @ b) transposed
    by_hand = [[50, 170, 290], [60, 220, 380], [70, 270, 470], [80, 320, 560]]
    np.testing.assert_array_equal(delta(found.modules[PATH]), by_hand)


def test_a_square_module_is_transposed_too(tmp_path: Path) -> None:
    tensors = {A: np.float32([[1, 0], [0, 0]]), B: np.float32([[0, 1], [0, 0]])}
    found = open_adapter(write_mlx(tmp_path, tensors))
    # the input's first number reaches the output's second: row 1, column 0
    np.testing.assert_array_equal(delta(found.modules[PATH]), [[0, 0], [10, 0]])


def test_the_scale_is_the_factor_and_not_divided_by_the_rank(tmp_path: Path) -> None:
    tensors = {A: np.ones((1, 4), np.float32), B: np.ones((4, 1), np.float32)}
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.0, "alpha": 16}
    found = open_adapter(write_mlx(tmp_path, tensors, lora_parameters=parameters))
    np.testing.assert_array_equal(delta(found.modules[PATH]), [[80]])


@pytest.mark.parametrize("path", ["model.embed_tokens", "transformer.wte"])
def test_an_embedding_is_told_by_its_name_and_its_delta_is_not_transposed(path: str, tmp_path: Path) -> None:
    vocabulary, dim = 5, 3
    a = np.arange(vocabulary * 2, dtype=np.float32).reshape(vocabulary, 2)
    b = np.arange(2 * dim, dtype=np.float32).reshape(2, dim)
    found = open_adapter(write_mlx(tmp_path, {f"{path}.lora_a": a, f"{path}.lora_b": b}))
    (factors,) = found.modules.values()
    assert factors.layer == EMBEDDING
    np.testing.assert_array_equal(delta(factors).T, 10 * a @ b)


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("language_model.model.layers.3.mlp.up_proj", "language_model.layers.3.mlp.up_proj"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
        ("multi_modal_projector.linear", "multi_modal_projector.linear"),
        ("vision_tower.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("language_model.lm_head", "lm_head"),
        ("model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj"),
    ],
)
def test_mlx_paths_stand_for_the_ids_of_every_other_format(path: str, module: str, tmp_path: Path) -> None:
    tensors = {f"{path}.lora_a": pair()[A], f"{path}.lora_b": pair()[B]}
    companion = "language_model.model.layers.0.mlp.up_proj" if "language" in path else None
    if companion:
        tensors |= {f"{companion}.lora_a": pair()[A], f"{companion}.lora_b": pair()[B]}
    found = open_adapter(write_mlx(tmp_path / "in", tensors))
    assert module in found.shapes
    converted(found, tmp_path / "out")
    assert load_file(tmp_path / "out/adapters.safetensors").keys() == tensors.keys()


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_the_legacy_layout_of_mlx_vlm_is_read_where_its_scale_has_one_reading(
    rank: int, tmp_path: Path
) -> None:
    path = "language_model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{path}.A": np.ones((3, rank), np.float32),
        f"{path}.B": np.ones((rank, 2), np.float32),
    }
    legacy = {"fine_tune_type": None, "num_layers": None, "lora_parameters": None, "rank": rank, "alpha": 14}
    folder = write_mlx(tmp_path, tensors, **legacy, dropout=0.1)
    if rank == 1:
        (factors,) = open_adapter(folder).modules.values()
        np.testing.assert_array_equal(delta(factors), np.full((2, 3), 14))
        return
    with pytest.raises(Refusal, match=f"alpha = 14 and .* alpha / rank = {14 // rank}$") as refused:
        open_adapter(folder)
    assert f'"lora_parameters": {{"rank": {rank}, "scale": {14 // rank}}}' in refused.value.way_on
    # and the way on is one
    (factors,) = open_adapter(
        write_mlx(tmp_path, tensors, **legacy | {"lora_parameters": {"rank": rank, "scale": 14}})
    ).modules.values()
    np.testing.assert_array_equal(delta(factors), np.full((2, 3), 14 * rank))


REFUSED_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"fine_tune_type": "dora"}, "DoRA"),
    ({"use_dora": True}, "DoRA"),
    ({"fine_tune_type": "full"}, "no LoRA"),
    ({"fine_tune_type": "lokr"}, "fine_tune_type is 'lokr'"),
    ({"fine_tune_type": ["lora"]}, "fine_tune_type is list"),
    ({"lora_parameters": [2, 10.0]}, "lora_parameters is list"),
    ({"lora_parameters": None}, "rank is None"),
    ({"lora_parameters": None, "rank": 2}, "alpha is None"),
    ({"lora_parameters": {"scale": 10.0}}, "lora_parameters.rank is None"),
    ({"lora_parameters": {"rank": 2}}, "lora_parameters.scale is None"),
    ({"lora_parameters": {"rank": 2, "alpha": 16}}, "lora_parameters.scale is None"),
    *(
        ({"lora_parameters": {"rank": rank, "scale": 1.0}}, "lora_parameters.rank is")
        for rank in (0, -1, 2.0, "2", True, 10**400)
    ),
    *(
        ({"lora_parameters": {"rank": 2, "scale": scale}}, "lora_parameters.scale is")
        for scale in (0, "10", True, [1], 1e-300, 1e300, 10**400, float("nan"), float("-inf"))
    ),
    ({"lora_parameters": {"rank": 3, "scale": 1.0}}, "gives rank 3, but .* has 2 columns"),
    ({"lora_parameters": {**PARAMETERS, "use_rslora": True}}, "'use_rslora' in lora_parameters is True"),
]


@pytest.mark.parametrize(("config", "named"), REFUSED_CONFIGS, ids=[f"{x}"[:60] for x, _ in REFUSED_CONFIGS])
def test_a_config_that_is_not_a_plain_lora_is_refused_with_the_field_named(
    config: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=named) as refused:
        open_adapter(write_mlx(tmp_path, **config))
    assert "adapter_config.json" in refused.value.what


REFUSED_TENSORS: list[tuple[dict[str, Any], str]] = [
    ({f"{PATH}.m": np.ones(4, np.float32)}, rf"{PATH}\.m is a magnitude of DoRA"),
    ({f"{PATH}.weight": np.ones((4, 3), np.float32)}, rf"{PATH}\.weight is neither"),
    ({f"{PATH}.A": pair()[A]}, "are one tensor"),
    ({"lora_a": pair()[A]}, "lora_a is neither"),
    ({"x.lora_a": pair()[A]}, r"of x there is only x\.lora_a"),
    ({"x.lora_b": pair()[B]}, r"of x there is only x\.lora_b"),
    ({A: pair()[A].T}, "gives rank 2, but .* has 3 columns"),
    ({B: pair()[B].T}, "not the factors of one module"),
    ({A: np.ones(6, np.float32)}, "not the factors of one module"),
    ({A: np.ones((3, 2), np.int32)}, "is I32"),
    (
        {A: np.ones((8, 2, 3), np.float32), B: np.ones((8, 4, 2), np.float32)},
        "adapts a layer of 8 experts",
    ),
]


@pytest.mark.parametrize(("tensors", "named"), REFUSED_TENSORS, ids=[named for _, named in REFUSED_TENSORS])
def test_a_file_that_is_not_a_plain_lora_is_refused_with_the_tensor_named(
    tensors: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=named):
        open_adapter(write_mlx(tmp_path, pair() | tensors))


def test_two_spellings_of_one_module_are_refused(tmp_path: Path) -> None:
    spellings = ("language_model.model.layers.0.q", "model.language_model.layers.0.q")
    tensors = {
        f"{path}.{leaf}": pair()[f"{PATH}.{leaf}"] for path in spellings for leaf in ("lora_a", "lora_b")
    }
    with pytest.raises(Refusal, match="are one module"):
        open_adapter(write_mlx(tmp_path, tensors))


def test_weights_without_their_config_are_refused_as_their_scale_is_unknown(tmp_path: Path) -> None:
    (write_mlx(tmp_path) / "adapter_config.json").unlink()
    with pytest.raises(Refusal, match=r"holds no adapter_config\.json"):
        open_adapter(tmp_path)


def test_numbers_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path) -> None:
    found = open_adapter(write_mlx(tmp_path, pair() | {B: np.full((2, 4), np.nan, np.float32)}))
    with pytest.raises(Refusal, match=rf"{PATH}\.lora_b holds NaN"):
        found.modules[PATH]


def test_the_config_names_every_module_and_the_scale_is_folded(tmp_path: Path) -> None:
    adapter = random_adapter(scale=4.0)
    converted(adapter, tmp_path / "mlx")
    config = json.loads((tmp_path / "mlx/adapter_config.json").read_text())
    assert config == {
        "fine_tune_type": "lora",
        "lora_parameters": {
            "dropout": 0.0,
            "keys": [
                "language_model.model.layers.0.mlp.gate_proj",
                "language_model.model.layers.0.self_attn.q_proj",
                "multi_modal_projector.linear",
                "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
            ],
            "rank": 4,
            "scale": 1.0,
        },
        "model": "tiny",
        "num_layers": -1,
    }
    tensors = load_file(tmp_path / "mlx/adapters.safetensors")
    for path, (module, (inputs, outputs)) in zip(
        config["lora_parameters"]["keys"], SIZES.items(), strict=True
    ):
        a, b = tensors[f"{path}.lora_a"], tensors[f"{path}.lora_b"]
        assert (a.shape, b.shape) == ((inputs, 4), (4, outputs))
        np.testing.assert_allclose((a @ b).T, delta(adapter.modules[module]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@given(adapter=adapters(embedding=("language_model.embed_tokens",)))
def test_what_is_written_reads_back_as_the_same_deltas(
    dtype: str, adapter: Adapter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    back = converted(adapter, tmp_path_factory.mktemp("mlx") / "out", dtype=dtype)
    same_deltas(back, adapter, dtype)


@given(seed=st.integers(0, 99), scale=st.sampled_from([0.25, 1.0, 2.0, 4.0, 8 / 5**0.5]))
def test_from_peft_to_mlx_and_back_the_deltas_are_equal(
    seed: int, scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    first = converted(random_adapter(seed, scale=scale), folder / "peft", "peft")
    second = converted(first, folder / "mlx")
    third = converted(second, folder / "back", "peft")
    assert first.fingerprint == second.fingerprint == third.fingerprint
    for module, factors in first.modules.items():
        np.testing.assert_array_equal(delta(third.modules[module]), delta(factors))


def test_equal_adapters_give_equal_bytes_in_whatever_order_their_modules_come(tmp_path: Path) -> None:
    adapter = random_adapter(scale=2.0)
    converted(adapter, tmp_path / "one")
    converted(Adapter(dict(reversed(list(adapter.modules.items()))), base_model="tiny"), tmp_path / "two")
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_bfloat16_stays_at_rest(tmp_path: Path) -> None:
    bf16 = {name: values.astype(ml_dtypes.bfloat16) for name, values in pair().items()}
    found = open_adapter(write_mlx(tmp_path / "in", bf16))
    assert found.dtype == converted(found, tmp_path / "out").dtype == "BF16"


def test_mixed_ranks_are_padded_and_compact_is_refused(tmp_path: Path) -> None:
    mixed = Adapter(
        {"model.layers.0.q": random_factors(0, 3, 4, 2), "model.layers.0.k": random_factors(1, 3, 3, 5)}
    )
    same_deltas(converted(mixed, tmp_path / "padded"), mixed)
    with pytest.raises(Refusal, match="one rank") as refused:
        converted(mixed, tmp_path / "compact", compact=True)
    assert "--compact" in refused.value.way_on
    converted(random_adapter(), tmp_path / "alike", compact=True)


def unwritable() -> dict[str, Adapter]:
    factors = random_factors(0, 4, 4, 2)
    extra = Extra("bias", (4,), "F32", lambda: np.ones(4, np.float32))
    conv = LoraFactors(factors.a, factors.b, 1.0, Layer("conv", (2,)))
    table = LoraFactors(factors.a, factors.b, 1.0, EMBEDDING)
    return {
        "layers.0.conv": Adapter({"layers.0.conv": conv}),
        "x.bias": Adapter({"x": factors}, extras={"x.bias": extra}),
        "layers.0.table": Adapter({"layers.0.table": table}),
        "layers.0.embed_tokens": Adapter({"layers.0.embed_tokens": factors}),
    }


@pytest.mark.parametrize("named", unwritable())
def test_what_mlx_has_no_place_for_is_refused_by_name(named: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=named):
        converted(unwritable()[named], tmp_path / "mlx")


def test_a_peft_adapter_of_an_embedding_keeps_its_delta(tmp_path: Path) -> None:
    key = "base_model.model.model.embed_tokens"
    a, b = np.random.default_rng(0).standard_normal((2, 4, 7), np.float32)
    tensors = {f"{key}.lora_embedding_A": a, f"{key}.lora_embedding_B": np.ascontiguousarray(b[:, :4].T)}
    found = open_adapter(write_peft(tmp_path / "peft", tensors, target_modules=["embed_tokens"]))
    converted(found, tmp_path / "mlx")
    written = load_file(tmp_path / "mlx/adapters.safetensors")
    table = written["model.embed_tokens.lora_a"] @ written["model.embed_tokens.lora_b"]
    np.testing.assert_allclose(table, 2 * (b[:, :4].T @ a).T, rtol=1e-5)
