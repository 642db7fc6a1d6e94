"""A projection with and without low-rank factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pamctl.models.projection import Projection


@pytest.fixture
def projection() -> Projection:
    made = Projection(5, 4, bias=True, rngs=nnx.Rngs(0))
    made.bias[...] = jnp.arange(4.0)
    return made


@pytest.fixture
def factors() -> dict[str, jax.Array]:
    a, b = jax.random.split(jax.random.key(1))
    return {"a": jax.random.normal(a, (5, 2)), "b": jax.random.normal(b, (2, 4))}


def test_without_factors_it_is_affine(projection):
    x = jax.random.normal(jax.random.key(2), (2, 3, 5))
    expected = np.asarray(x) @ np.asarray(projection.weight[...]).T + np.arange(4)
    np.testing.assert_allclose(projection(x, None, 7.0), expected, atol=1e-5)


def test_factors_add_the_scaled_delta(projection, factors):
    x = jax.random.normal(jax.random.key(2), (2, 3, 5))
    delta = projection(x, factors, 0.5) - projection(x, None, 0.5)
    np.testing.assert_allclose(delta, 0.5 * x @ (factors["a"] @ factors["b"]), atol=1e-5)


def test_no_bias_means_no_bias_parameter():
    assert set(nnx.to_pure_dict(nnx.state(Projection(2, 2, bias=False, rngs=nnx.Rngs(0))))) == {"weight"}


def test_bf16_activations_stay_bf16_and_the_delta_is_not_rounded_on_the_way(projection, factors):
    low = nnx.merge(
        nnx.graphdef(projection),
        jax.tree.map(lambda leaf: 0 * leaf.astype(jnp.bfloat16), nnx.state(projection)),
    )
    x = jax.random.normal(jax.random.key(2), (6, 5)).astype(jnp.bfloat16)
    y = low(x, factors, 1.0)
    exact = x.astype(jnp.float32) @ factors["a"] @ factors["b"]
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
