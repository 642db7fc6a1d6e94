"""Factors of the model: chosen, started, written as an adapter and read from one."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING, Layer, LoraFactors
from pamctl.models.lora import (
    adaptable,
    chosen,
    init_lora,
    lora_from_adapter,
    lora_to_adapter,
    routers_of,
)
from pamctl.models.paligemma import image_features, suffix_loss
from pamctl.refusal import Refusal, UsageRefusal

Q0 = "language_model.layers.0.self_attn.q_proj"


def factors(inputs: int, outputs: int, rank: int = 2, scale: float = 1.0, seed: int = 0) -> LoraFactors:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rank, inputs)), rng.normal(size=(outputs, rank))
    return LoraFactors(a.astype(np.float32), b.astype(np.float32), scale)


def test_every_projection_of_the_model_can_be_adapted(config, params):
    matrices = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "weight" and re.search("proj$|fc[12]$|linear$", path[-2].key)
    }
    assert len(matrices) == len(adaptable(config))
    for kind in adaptable(config):
        (shape,) = [
            shape[-2:] for name, shape in matrices.items() if kind.tower in name and f"'{kind.kind}'" in name
        ]
        assert shape == (kind.outputs, kind.inputs)


def test_canonical_ids(config):
    ids = [module for kind in adaptable(config) for module in kind.modules()]
    assert len(ids) == len(set(ids)) == 7 * 3 + 6 * 2 + 1
    assert {Q0, "vision_tower.encoder.layers.1.mlp.fc1", "multi_modal_projector.linear"} <= set(ids)


def test_fresh_factors_start_as_pefts(config):
    lora = init_lora(config, 64, ".*(gate_proj|linear)", seed=3)
    assert set(lora) == {"language_model", "multi_modal_projector"}
    gate = lora["language_model"]["gate_proj"]
    assert gate["a"].shape == (3, 16, 64)
    assert gate["b"].shape == (3, 64, 24)
    assert not np.any(gate["b"])
    assert np.abs(gate["a"]).max() <= 16**-0.5
    assert np.std(gate["a"]) == pytest.approx(16**-0.5 / 3**0.5, rel=0.05)
    assert abs(np.mean(gate["a"])) < 0.01


def test_a_module_starts_alike_whatever_else_is_adapted(config):
    alone = init_lora(config, 4, ".*q_proj", seed=3)["language_model"]["q_proj"]["a"]
    among = init_lora(config, 4, ".*", seed=3)["language_model"]["q_proj"]["a"]
    np.testing.assert_array_equal(alone, among)
    assert not np.array_equal(alone[0], alone[1])
    assert not np.array_equal(
        alone, init_lora(config, 4, ".*q_proj", seed=4)["language_model"]["q_proj"]["a"]
    )


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        ("q_proj", "picks no module"),
        (r"language_model\.layers\.[01]\..*q_proj", "picks some layers of language_model's q_proj"),
        ("(", "is not a regular expression"),
    ],
)
def test_targets_that_fit_no_stack_are_refused(config, targets, named):
    with pytest.raises(UsageRefusal, match=named):
        chosen(config, targets)


def test_a_rank_of_zero_is_refused(config):
    with pytest.raises(UsageRefusal, match="rank 0"):
        init_lora(config, 0, ".*", seed=0)


def test_there_and_back_with_the_scale_in_b(config, lora):
    adapter = Adapter(lora_to_adapter(lora, 0.5, config))
    assert {module.scale for module in adapter.modules.values()} == {1.0}
    back = lora_from_adapter(adapter, config)
    assert jax.tree.structure(back) == jax.tree.structure(lora)
    for tower, kinds in lora.items():
        for kind, pair in kinds.items():
            np.testing.assert_array_equal(back[tower][kind]["a"], pair["a"])
            np.testing.assert_array_equal(back[tower][kind]["b"], 0.5 * pair["b"])


def test_the_adapters_delta_is_what_the_model_adds(config, params, lora, pixels, batch):
    def loss(lora: dict, scale: float) -> np.ndarray:
        seen = image_features(config, params, lora, scale, pixels)
        return suffix_loss(config, params, lora, scale, seen, batch)

    read = lora_from_adapter(Adapter(lora_to_adapter(lora, 0.25, config)), config, rank=5)
    np.testing.assert_allclose(loss(read, 1.0), loss(lora, 0.25), atol=1e-5)


def test_missing_layers_and_smaller_ranks_are_filled_with_zeros(config):
    last = "language_model.layers.2.self_attn.q_proj"
    adapter = Adapter({Q0: factors(16, 24, 2, scale=3.0), last: factors(16, 24, 1)})
    lora = lora_from_adapter(adapter, config, rank=4)
    assert set(lora) == {"language_model"}
    pair = lora["language_model"]["q_proj"]
    assert pair["a"].shape == (3, 16, 4)
    np.testing.assert_array_equal(pair["a"][0, :, :2], adapter.modules[Q0].a.T)
    np.testing.assert_array_equal(pair["b"][0, :2], 3 * adapter.modules[Q0].b.T)
    assert not np.any(pair["a"][1])
    assert not np.any(pair["b"][1])
    assert not np.any(pair["a"][2, :, 1:])
    assert lora_from_adapter(adapter, config)["language_model"]["q_proj"]["a"].shape == (3, 16, 2)


@pytest.mark.parametrize(
    ("module", "given", "rank", "named"),
    [
        (
            "language_model.layers.3.self_attn.q_proj",
            factors(16, 24),
            None,
            "does not have: it was trained on",
        ),
        ("language_model.layers.0.self_attn.qkv", factors(16, 24), None, "self_attn.qkv"),
        (Q0, factors(2048, 2048), None, "as 2048 to 2048, this base has 16 to 24: it was trained on another"),
        (Q0, factors(16, 24, rank=3), 2, "has rank 3"),
    ],
)
def test_an_adapter_of_another_base_is_refused(config, module, given, rank, named):
    with pytest.raises(Refusal, match=named) as refused:
        lora_from_adapter(Adapter({module: given}, name="hers"), config, rank)
    assert "hers" in refused.value.what
    assert module in refused.value.what


def test_what_is_no_linear_delta_is_refused_by_name(config):
    bias = Extra("lora_bias", (1,), "F32", lambda: np.ones(1, np.float32))
    carrying = Adapter({Q0: factors(1, 1)}, extras={f"{Q0}.lora_bias": bias})
    with pytest.raises(Refusal, match=f"{Q0}.lora_bias"):
        lora_from_adapter(carrying, config)
    table = replace(factors(1, 1), layer=EMBEDDING)
    with pytest.raises(Refusal, match=r"embed_tokens, which is embedding"):
        lora_from_adapter(Adapter({"language_model.embed_tokens": table}), config)
    patches = replace(factors(4, 1), layer=Layer("conv", (2, 2)))
    with pytest.raises(Refusal, match="patch_embedding, which is conv"):
        lora_from_adapter(Adapter({"vision_tower.embeddings.patch_embedding": patches}), config)


def test_fresh_experts_are_plain_lora_and_routers(config):
    plain = init_lora(config, 4, ".*(gate_proj|linear)", seed=3)
    experts = init_lora(config, 4, ".*(gate_proj|linear)", seed=3, experts=2)
    for tower, kinds in plain.items():
        for kind, pair in kinds.items():
            for leaf, values in pair.items():
                np.testing.assert_array_equal(experts[tower][kind][leaf], values)
    router = experts["language_model"]["gate_proj"]["router"]
    assert (router.shape, router.dtype) == ((3, 16, 2), np.float32)
    assert experts["multi_modal_projector"]["linear"]["router"].shape == (1, 12, 2)
    assert 0.9 * 16**-0.5 < np.abs(router).max() <= 16**-0.5
    assert not np.array_equal(router[0], router[1])
    assert not np.array_equal(router[0], experts["language_model"]["gate_proj"]["a"][0, :, :2])


@pytest.mark.parametrize("experts", [0, 3, 8])
def test_experts_that_cannot_share_the_rank_are_refused(config, experts):
    with pytest.raises(UsageRefusal, match=f"rank 4 cannot be shared evenly by {experts} experts"):
        init_lora(config, 4, ".*", seed=0, experts=experts)


def test_experts_there_and_back(config):
    lora = _mixture(config)
    adapter = Adapter(lora_to_adapter(lora, 0.5, config), routers=routers_of(lora, config))
    assert adapter.experts == 2
    np.testing.assert_array_equal(adapter.routers[Q0], lora["language_model"]["q_proj"]["router"][0].T)
    back = lora_from_adapter(adapter, config)
    assert jax.tree.structure(back) == jax.tree.structure(lora)
    for kind, leaves in lora["language_model"].items():
        np.testing.assert_array_equal(back["language_model"][kind]["router"], leaves["router"])
        np.testing.assert_array_equal(back["language_model"][kind]["b"], 0.5 * leaves["b"])


def test_plain_lora_has_no_routers(config, lora):
    assert routers_of(lora, config) == {}
    back = lora_from_adapter(Adapter(lora_to_adapter(lora, 1.0, config)), config)
    assert jax.tree.structure(back) == jax.tree.structure(lora)


def test_layers_that_a_mixture_lacks_add_nothing(config):
    router = np.ones((2, 16), np.float32)
    lora = lora_from_adapter(Adapter({Q0: factors(16, 24)}, routers={Q0: router}), config)
    q_proj = lora["language_model"]["q_proj"]
    np.testing.assert_array_equal(q_proj["router"][0], router.T)
    assert not np.any(q_proj["router"][1:])
    assert not np.any(q_proj["b"][1:])


def test_experts_take_no_other_rank(config):
    adapter = Adapter({Q0: factors(16, 24)}, routers={Q0: np.ones((2, 16), np.float32)})
    with pytest.raises(Refusal, match="2 experts that share rank 2, not 4"):
        lora_from_adapter(adapter, config, rank=4)


def test_one_expert_in_the_model_is_plain_lora_bit_for_bit(config, params, pixels, batch):
    single = _mixture(config, experts=1)
    plain = {
        tower: {kind: {"a": leaves["a"], "b": leaves["b"]} for kind, leaves in kinds.items()}
        for tower, kinds in single.items()
    }

    @jax.jit
    def loss(lora: dict) -> jax.Array:
        seen = image_features(config, params, lora, 0.5, pixels)
        return suffix_loss(config, params, lora, 0.5, seen, batch)

    np.testing.assert_array_equal(loss(single), loss(plain))


def _mixture(config, experts: int = 2) -> dict:
    """Experts with B filled in, so that they change the output."""
    key = jax.random.key(1)
    fresh = init_lora(config, 4, ".*(q_proj|fc1|linear)", seed=0, experts=experts)
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(key, leaf.shape), fresh)
