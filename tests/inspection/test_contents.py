import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from pamctl.adapters import Adapter, ComputedModules, LoraFactors, open_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING, Layer
from pamctl.inspection import describe
from pamctl.refusal import Refusal
from tests.adapter_cases import (
    KEY,
    Q_PROJ,
    SIZES,
    delta,
    on_base,
    random_adapter,
    random_factors,
    saved,
    write_peft,
)

FIGURES = ("norm", "effective_rank", "rank_90", "rank_99")


def flat(adapter: Adapter) -> np.ndarray:
    return np.concatenate([delta(factors).ravel() for factors in adapter.modules.values()])


def test_an_adapter_is_described_by_its_deltas() -> None:
    adapter = random_adapter(scale=0.5, tasks=("first",), base=on_base("aa"))
    contents = describe(adapter)
    assert contents["norm"] == pytest.approx(float(np.linalg.norm(flat(adapter))))
    assert contents["base"] == {"name": "tiny", "fingerprint": "aa"}
    assert contents["provenance"]["tasks"] == ("first",)
    assert (contents["ranks"], contents["scales"], contents["dtypes"]) == ([4], [0.5], ["F32"])
    assert contents["bytes"] == 4 * contents["parameters"] == 4 * 4 * sum(map(sum, SIZES.values()))
    assert contents["layers"] == 2
    assert [(group["tower"], group["kind"], group["modules"]) for group in contents["groups"]] == [
        ("language_model", "gate_proj", 1),
        ("language_model", "q_proj", 1),
        ("multi_modal_projector", "linear", 1),
        ("vision_tower", "fc1", 1),
    ]
    json.dumps(contents, allow_nan=False)


def test_figures_are_those_of_the_dense_deltas() -> None:
    adapter = random_adapter(scale=0.5, rank=5)
    contents = describe(adapter)
    for module, factors in zip(contents["modules"], adapter.modules.values(), strict=True):
        energies = np.linalg.svd(delta(factors), compute_uv=False)[:5] ** 2
        shares = energies / energies.sum()
        assert module["norm"] == pytest.approx(np.sqrt(energies.sum()))
        assert module["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        for percent in (90, 99):
            assert module[f"rank_{percent}"] == 1 + np.count_nonzero(shares.cumsum() < percent / 100)


def test_the_whole_is_truncated_to_one_rank() -> None:
    adapter = random_adapter(rank=5)
    spectra = [np.linalg.svd(delta(f), compute_uv=False)[:5] ** 2 for f in adapter.modules.values()]
    kept = np.sum(spectra, axis=0).cumsum() / np.sum(spectra)
    contents = describe(adapter)
    assert contents["rank_90"] == 1 + np.count_nonzero(kept < 0.9)
    ranks = [module["effective_rank"] for module in contents["modules"]]
    assert min(ranks) < contents["effective_rank"] < max(ranks)


def test_a_delta_of_one_direction_has_effective_rank_one() -> None:
    a, b = np.zeros((4, 16), np.float32), np.zeros((16, 4), np.float32)
    a[0], b[:, 0] = 1, 3
    module = describe(Adapter({Q_PROJ: LoraFactors(a, b, 2.0)}))["modules"][0]
    assert module["norm"] == pytest.approx(2 * 3 * 16)
    assert module["effective_rank"] == pytest.approx(1)
    assert (module["rank_90"], module["rank_99"]) == (1, 1)
    assert (module["a_norm"], module["b_norm"]) == pytest.approx((4, 12))


def test_equal_directions_count_each() -> None:
    factors = LoraFactors(np.eye(4, 16, dtype=np.float32), np.eye(16, 4, dtype=np.float32))
    module = describe(Adapter({Q_PROJ: factors}))["modules"][0]
    assert module["effective_rank"] == pytest.approx(4)
    assert (module["rank_90"], module["rank_99"]) == (4, 4)


def test_a_delta_of_zero_has_no_nan_and_is_noted() -> None:
    still = LoraFactors(np.ones((4, 16), np.float32), np.zeros((16, 4), np.float32))
    contents = describe(Adapter({Q_PROJ: still, "other": random_factors(0, 8, 8)}))
    module = next(module for module in contents["modules"] if module["module"] == Q_PROJ)
    assert [module[figure] for figure in FIGURES] == [0, None, 0, 0]
    assert f"the delta of 1 modules is 0, such as {Q_PROJ}" in contents["notes"]
    alone = describe(Adapter({Q_PROJ: still}))
    assert [alone[figure] for figure in FIGURES] == [0, None, 0, 0]
    json.dumps([contents, alone], allow_nan=False)


def test_convolutions_and_embeddings_are_described_by_their_factors() -> None:
    conv = replace(random_factors(0, 3 * 3 * 8, 16), layer=Layer("conv", (3, 3)))
    table = replace(random_factors(1, 100, 16), layer=EMBEDDING)
    contents = describe(Adapter({"conv_in": conv, "embed_tokens": table}))
    layers = {module["module"]: module["layer"] for module in contents["modules"]}
    assert layers == {"conv_in": "conv", "embed_tokens": "embedding"}
    assert contents["norm"] == pytest.approx(np.hypot(*map(np.linalg.norm, map(delta, (conv, table)))))
    assert contents["layers"] == 0


def test_bf16_counts_two_bytes_and_is_measured_as_it_is_at_rest(tmp_path: Path) -> None:
    factors = random_factors(0, 16, 16)
    a, b = (factor.astype(ml_dtypes.bfloat16) for factor in (factors.a, factors.b))
    write_peft(tmp_path / "bf16", {f"{KEY}.lora_A.weight": a, f"{KEY}.lora_B.weight": b})
    contents = describe(open_adapter(tmp_path / "bf16"))
    assert (contents["dtypes"], contents["bytes"]) == (["BF16"], 2 * 4 * 32)
    rounded = LoraFactors(a.astype(np.float32), b.astype(np.float32), 2.0)
    assert contents["norm"] == pytest.approx(np.linalg.norm(delta(rounded)))


def test_without_norms_no_number_is_read(tmp_path: Path) -> None:
    saved(random_adapter(scale=0.5, tasks=("first",)), tmp_path / "first")
    opened = open_adapter(tmp_path / "first")

    def unread(module: str) -> LoraFactors:
        raise AssertionError(f"{module} was read")

    unreadable = Adapter(ComputedModules(opened.shapes, unread), opened.provenance, origin=opened.origin)
    contents = describe(unreadable, norms=False)
    assert not any(figure in contents["modules"][0] for figure in FIGURES)
    assert opened.provenance is not None
    assert contents["fingerprint"] == opened.provenance.fingerprint
    assert contents["fingerprint_verified"] is False
    whole = describe(opened)
    for key in ("format", "layers", "ranks", "scales", "dtypes", "bytes", "extras"):
        assert contents[key] == whole[key]
    assert whole["fingerprint_verified"] is True


def test_a_scale_is_told_without_reading(tmp_path: Path) -> None:
    write_peft(tmp_path / "foreign", lora_alpha=2)
    assert describe(open_adapter(tmp_path / "foreign"), norms=False)["scales"] == [0.5]


def test_weights_that_are_not_the_records_are_refused(tmp_path: Path) -> None:
    folder = saved(random_adapter(tasks=("first",)), tmp_path / "first")
    record = json.loads((folder / "pamctl.json").read_text())
    (folder / "pamctl.json").write_text(json.dumps(record | {"fingerprint": "0" * 64}))
    with pytest.raises(Refusal, match="not those that its record describes"):
        describe(open_adapter(folder))


def test_extras_are_counted_by_role() -> None:
    bias = np.zeros(16, np.float32)
    extras = {
        "lm_head.weight": Extra("module", (10, 16), "BF16", lambda: np.zeros((10, 16), ml_dtypes.bfloat16)),
        f"{Q_PROJ}.bias": Extra("bias", (16,), "F32", bias.copy),
    }
    contents = describe(Adapter({Q_PROJ: random_factors(0, 16, 16)}, extras=extras))
    assert contents["extras"] == [
        {"role": "bias", "tensors": 1, "bytes": 64, "names": [f"{Q_PROJ}.bias"]},
        {"role": "module", "tensors": 1, "bytes": 320, "names": ["lm_head.weight"]},
    ]
    assert "2 tensors are no deltas and pass through unchanged" in contents["notes"]


def test_flattened_ids_are_grouped_by_their_last_word_or_unknown_by_what_follows_their_last_number() -> None:
    blocks = [f"down_blocks_0_attentions_{i}_transformer_blocks_0_attn1_to_q" for i in range(2)]
    unknown = [f"double_blocks_{i}_img_attn_qkv" for i in range(2)]
    adapter = Adapter({module: random_factors(0, 8, 8) for module in (*blocks, *unknown)})
    groups = describe(adapter)["groups"]
    assert [(group["tower"], group["kind"], group["modules"], group["layers"]) for group in groups] == [
        ("denoiser", "img_attn_qkv", 2, 2),
        ("denoiser", "to_q", 2, 2),
    ]
