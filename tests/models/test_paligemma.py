"""Mask, loss and adapters on the whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.paligemma import (
    forward_logits,
    image_features,
    prefix_mask,
    suffix_logits,
    suffix_loss,
    suffix_targets,
)
from pamctl.models.text import text_batch


def test_the_mask_is_the_one_drawn_in_its_docstring():
    drawn = """
        1 1 0 0 0
        1 1 0 0 0
        1 1 1 0 0
        1 1 1 1 0
    """
    expected = np.array([[int(cell) for cell in line.split()] for line in drawn.strip().splitlines()], bool)
    np.testing.assert_array_equal(prefix_mask(jnp.array([2]), jnp.array([4]), 5)[0, :4], expected)


def test_the_loss_is_the_mean_cross_entropy_of_the_suffix(config, params, features, batch, texts):
    log_p = jax.nn.log_softmax(forward_logits(config, params, {}, 1.0, features, batch))
    images = features.shape[1]
    expected = [
        -np.mean([log_p[row, images + len(prefix) + j - 1, token] for j, token in enumerate(suffix)])
        for row, (prefix, suffix) in enumerate(texts)
    ]
    np.testing.assert_allclose(suffix_loss(config, params, {}, 1.0, features, batch), expected, atol=1e-5)


def test_suffix_logits_predict_suffix_targets(config, params, features, batch, texts):
    tokens, real = suffix_targets(batch)
    logits = suffix_logits(config, params, {}, 1.0, features, batch)
    everywhere = forward_logits(config, params, {}, 1.0, features, batch)
    for row, (prefix, suffix) in enumerate(texts):
        assert tokens[row][real[row]].tolist() == suffix
        start = features.shape[1] + len(prefix) - 1
        np.testing.assert_allclose(
            logits[row][real[row]], everywhere[row, start : start + len(suffix)], atol=1e-5
        )


@pytest.mark.parametrize(("text_length", "suffix_width"), [(9, 3), (6, 5), (14, 8)])
def test_padding_changes_no_loss(config, params, features, batch, texts, text_length, suffix_width):
    padded = text_batch(texts, text_length, suffix_width, pad_token_id=17)
    np.testing.assert_allclose(
        suffix_loss(config, params, {}, 1.0, features, padded),
        suffix_loss(config, params, {}, 1.0, features, batch),
        atol=1e-5,
    )


def test_the_suffix_is_causal_and_the_prefix_sees_itself_whole(config, params, features):
    def logits(prefix: list[int], suffix: list[int]) -> jax.Array:
        batch = text_batch([(prefix, suffix)], 7, 3)
        return forward_logits(config, params, {}, 1.0, features[:1], batch)[0]

    images = features.shape[1]
    one, other = logits([2, 9, 8, 5], [7, 6, 1]), logits([2, 9, 8, 5], [7, 13, 1])
    np.testing.assert_array_equal(one[: images + 5], other[: images + 5])
    assert not np.allclose(one[images + 5], other[images + 5])
    assert not np.allclose(one[0], logits([2, 9, 11, 5], [7, 6, 1])[0])


def test_label_smoothing_is_shared_by_all_other_tokens(config, params, features, batch):
    smoothing = np.array([0.0, 0.2, 0.5], np.float32)
    log_p = jax.nn.log_softmax(suffix_logits(config, params, {}, 1.0, features, batch))
    tokens, real = suffix_targets(batch)
    rows = log_p.shape[-1]
    on = jax.nn.one_hot(tokens, rows)
    wanted = on * (1 - smoothing[:, None, None]) + (1 - on) * smoothing[:, None, None] / (rows - 1)
    expected = (-(wanted * log_p).sum(-1) * real).sum(-1) / real.sum(-1)
    np.testing.assert_allclose(
        suffix_loss(config, params, {}, 1.0, features, batch, smoothing), expected, rtol=1e-5
    )


def test_each_example_keeps_its_images_in_order(config, params, pixels):
    pairs = jnp.stack([pixels[:2, 0], pixels[1:, 0]], axis=1)
    both = image_features(config, params, {}, 1.0, pairs)
    single = image_features(config, params, {}, 1.0, pixels)
    np.testing.assert_allclose(both[0], jnp.concatenate([single[0], single[1]]), atol=1e-5)
    np.testing.assert_allclose(both[1], jnp.concatenate([single[1], single[2]]), atol=1e-5)


def test_factors_equal_weights_with_their_delta_added(config, params, lora, pixels, batch):
    merged = jax.tree.map(lambda leaf: leaf, params)
    for tower, place in (
        ("language_model", merged["language_model"]["layers"]),
        ("vision_tower", merged["vision_tower"]["encoder"]["layers"]),
    ):
        for kind, factors in lora[tower].items():
            part = "mlp" if kind in ("fc1", "down_proj") else "self_attn"
            place[part][kind]["weight"] += 0.5 * (factors["a"] @ factors["b"]).swapaxes(1, 2)
    linear = lora["multi_modal_projector"]["linear"]
    merged["multi_modal_projector"]["linear"]["weight"] += 0.5 * (linear["a"] @ linear["b"])[0].T

    def loss(params: dict, lora: dict) -> jax.Array:
        seen = image_features(config, params, lora, 0.5, pixels)
        return suffix_loss(config, params, lora, 0.5, seen, batch)

    np.testing.assert_allclose(loss(params, lora), loss(merged, {}), atol=2e-5)
    assert not np.allclose(loss(params, lora), loss(params, {}))


def test_every_parameter_and_factor_has_a_gradient(config, params, lora, pixels, batch):
    def loss(params: dict, lora: dict) -> jax.Array:
        seen = image_features(config, params, lora, 1.0, pixels)
        return suffix_loss(config, params, lora, 1.0, seen, batch).mean()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, lora)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        # A constant added to every key moves all scores of a query alike, so softmax takes it out.
        if "k_proj']['bias" not in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)


def test_the_gradient_is_the_slope(config, params, lora, features, batch):
    """The backward pass computes parts of each layer again; it must compute the same."""

    def loss(step: jax.Array) -> jax.Array:
        moved = jax.tree.map(lambda leaf: leaf * (1 + step), lora)
        return suffix_loss(config, params, moved, 1.0, features, batch).mean()

    loss = jax.jit(jax.value_and_grad(loss))
    slope = (loss(0.01)[0] - loss(-0.01)[0]) / 0.02
    assert float(loss(0.0)[1]) == pytest.approx(float(slope), rel=2e-2)


def test_bf16_parameters_give_nearly_the_same_loss(config, params, lora, pixels, batch):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)

    def loss(params: dict) -> jax.Array:
        return suffix_loss(
            config, params, lora, 1.0, image_features(config, params, lora, 1.0, pixels), batch
        )

    assert loss(low).dtype == jnp.float32
    np.testing.assert_allclose(loss(low), loss(params), atol=0.1)


def test_a_row_without_suffix_has_no_loss(config, params, features, batch):
    empty = dataclasses.replace(batch, length=batch.prefix_length)
    np.testing.assert_array_equal(suffix_loss(config, params, {}, 1.0, features, empty), np.zeros(3))
