"""The vision tower's own properties; its numbers are held against transformers in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pamctl.models.siglip import LayerNorm, VisionEmbeddings, vision_tower


def test_patch_embedding_is_a_strided_convolution(config):
    vision = config.vision
    embeddings = VisionEmbeddings(vision, nnx.Rngs(0))
    pixels = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    filters = embeddings.patch_embedding.weight[...].reshape(vision.hidden_size, 3, 4, 4)
    convolved = jax.lax.conv_general_dilated(
        pixels, filters, (4, 4), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    expected = convolved.reshape(2, 4, -1) + embeddings.position_embedding.weight[...]
    np.testing.assert_allclose(embeddings(pixels), expected, atol=1e-5)


def test_layer_norm_matches_its_formula():
    norm = LayerNorm(6, 1e-6)
    norm.weight[...], norm.bias[...] = jnp.arange(6.0), jnp.ones(6)
    x = np.random.default_rng(0).normal(3, 2, (4, 6)).astype(np.float32)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * np.arange(6) + 1
    np.testing.assert_allclose(norm(x), expected, atol=1e-5)


def test_one_vector_a_patch_in_the_parameters_dtype(config, params, pixels):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["vision_tower"])
    exact = vision_tower(config.vision, params["vision_tower"], {}, 1.0, pixels[:, 0])
    rounded = vision_tower(config.vision, low, {}, 1.0, pixels[:, 0])
    assert rounded.shape == (3, 4, 12)
    assert rounded.dtype == jnp.bfloat16
    assert jnp.abs(rounded - exact).mean() < 0.05


def test_images_do_not_see_each_other(config, params, pixels):
    together = vision_tower(config.vision, params["vision_tower"], {}, 1.0, pixels[:, 0])
    alone = vision_tower(config.vision, params["vision_tower"], {}, 1.0, pixels[1:2, 0])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
