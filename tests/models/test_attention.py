"""Attention against a loop over heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.attention import attend


def by_loop(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    batch, length, heads, width = q.shape
    out = np.zeros((batch, length, heads, width))
    for i in range(batch):
        for head in range(heads):
            shared = head // (heads // k.shape[2])
            scores = np.where(mask[i], q[i, :, head] @ k[i, :, shared].T, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[i, :, head] = weights / weights.sum(-1, keepdims=True) @ v[i, :, shared]
    return out.reshape(batch, length, heads * width)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (4, 2), (4, 4), (1, 1)])
def test_grouped_heads_match_a_loop(heads, kv_heads):
    rng = np.random.default_rng(heads + kv_heads)
    q = rng.normal(size=(2, 5, heads, 6)).astype(np.float32)
    k, v = (rng.normal(size=(2, 7, kv_heads, 6)).astype(np.float32) for _ in range(2))
    mask = rng.random((2, 5, 7)) < 0.6
    mask[..., 0] = True
    np.testing.assert_allclose(attend(q, k, v, jnp.asarray(mask)), by_loop(q, k, v, mask), atol=1e-5)


def test_no_mask_sees_every_key():
    q, k, v = (jax.random.normal(jax.random.key(i), (1, 3, 2, 4)) for i in range(3))
    np.testing.assert_array_equal(attend(q, k, v), attend(q, k, v, jnp.ones((1, 3, 3), bool)))


def test_hidden_keys_weigh_nothing():
    q, k, v = (jax.random.normal(jax.random.key(i), (1, 3, 2, 4)) for i in range(3))
    mask = jnp.array([[[True, True, False]] * 3])
    np.testing.assert_array_equal(
        attend(q, k, v, mask), attend(q, k.at[:, 2].set(1e6), v.at[:, 2].set(1e6), mask)
    )


def test_the_result_has_the_values_dtype():
    x = jnp.ones((1, 2, 1, 2), jnp.bfloat16)
    assert attend(x, x, x).dtype == jnp.bfloat16
