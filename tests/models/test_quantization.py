"""Matrices in four bits: NF4 as the QLoRA paper has it, what is left alone, and what a model makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.base import load_base
from pamctl.models.paligemma import forward_logits, image_features
from pamctl.models.quantization import numbers_of, quantized
from pamctl.refusal import UsageRefusal

NF4 = np.float32(
    """
    -1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
    -0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725
    0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941
    0.7229568362236023 1.0
    """.split()
)
"""Dettmers et al. (2023), appendix E."""


def by_hand(matrix: np.ndarray, block: int) -> np.ndarray:
    blocks = matrix.reshape(*matrix.shape[:-1], -1, block)
    largest = np.abs(blocks).max(-1, keepdims=True)
    nearest = np.abs(blocks[..., None] / largest[..., None] - NF4).argmin(-1)
    return (NF4[nearest] * largest).reshape(matrix.shape)


@pytest.mark.parametrize(("inputs", "block"), [(128, 64), (48, 48), (4304 // 8, 2), (96, 48)])
def test_each_block_of_inputs_is_rounded_to_nf4_of_its_largest(inputs, block):
    matrix = np.random.default_rng(0).normal(size=(2, 5, inputs)).astype(np.float32)
    held = quantized(jnp.asarray(matrix))
    assert held.qvalue.dtype == jnp.uint4
    assert held.scale.shape == (2, 5, inputs // block)
    np.testing.assert_allclose(numbers_of(held), by_hand(matrix, block), atol=1e-6)


def test_what_is_no_matrix_of_a_layer_stays_as_it_is(checkpoint):
    plain, small = load_base(str(checkpoint), "f32"), load_base(str(checkpoint), "f32", quantize="nf4")
    assert (small.quantize, small.fingerprint) == ("nf4", plain.fingerprint)
    layers = small.parameters["language_model"]["layers"]
    assert layers["mlp"]["down_proj"]["weight"].qvalue.dtype == jnp.uint4
    for path in (("language_model", "embed_tokens"), ("multi_modal_projector", "linear")):
        ours, theirs = (base.parameters[path[0]][path[1]]["weight"] for base in (small, plain))
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        layers["input_layernorm"]["weight"],
        plain.parameters["language_model"]["layers"]["input_layernorm"]["weight"],
    )


def test_the_model_computes_with_the_rounded_matrices(checkpoint, pixels, batch, lora):
    small = load_base(str(checkpoint), "f32", quantize="nf4")
    whole = jax.tree.map(numbers_of, small.parameters, is_leaf=lambda leaf: hasattr(leaf, "qvalue"))

    def logits(params):
        seen = image_features(small.config, params, lora, 0.5, pixels)
        return forward_logits(small.config, params, lora, 0.5, seen, batch)

    np.testing.assert_allclose(logits(small.parameters), logits(whole), atol=1e-5)
    plain = load_base(str(checkpoint), "f32").parameters
    assert 1e-3 < np.abs(logits(plain) - logits(whole)).mean() < 1


def test_other_types_are_refused(checkpoint):
    with pytest.raises(UsageRefusal, match="cannot be quantised to 'int3'"):
        load_base(str(checkpoint), quantize="int3")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "qwix", None)
    with pytest.raises(UsageRefusal, match="needs qwix") as refused:
        quantized(jnp.ones((1, 2, 64)))
    assert "pamctl[qlora]" in refused.value.way_on
