"""A projection with and without low-rank factors, and with experts behind a router."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pamctl.models.projection import Projection, projected


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


def mixture(experts: int, outputs: int, seed: int) -> dict[str, jax.Array]:
    """Experts of rank 2 for 5 inputs, with routers that tell them apart."""
    a, b, router = jax.random.split(jax.random.key(seed), 3)
    return {
        "a": jax.random.normal(a, (5, 2 * experts)),
        "b": jax.random.normal(b, (2 * experts, outputs)),
        "router": 3 * jax.random.normal(router, (5, experts)),
    }


def mixed(x: np.ndarray, factors: dict[str, jax.Array], scale: float) -> np.ndarray:
    """What the experts add to one token x (in,), one after the other, in float64."""
    a, b, router = (np.asarray(factors[leaf], np.float64) for leaf in ("a", "b", "router"))
    weights = np.exp(x @ router) / np.exp(x @ router).sum()
    return sum(
        gate * scale * (x @ a[:, 2 * e : 2 * e + 2]) @ b[2 * e : 2 * e + 2] for e, gate in enumerate(weights)
    )


def test_experts_add_their_deltas_each_times_its_gate():
    """Two projections of the same inputs, of other numbers of experts, beside one that has no router."""
    kinds = [Projection(5, outputs, bias=False, rngs=nnx.Rngs(0)) for outputs in (4, 3, 4)]
    plain = {leaf: values for leaf, values in mixture(1, 4, seed=1).items() if leaf != "router"}
    given = [mixture(3, 4, seed=2), mixture(4, 3, seed=3), plain]
    x = jax.random.normal(jax.random.key(4), (2, 3, 5))
    with_factors = projected(x, list(zip(kinds, given, strict=True)), 0.5)
    without = projected(x, [(kind, None) for kind in kinds], 0.5)
    for factors, y, bare in zip(given[:2], with_factors[:2], without[:2], strict=True):
        expected = np.stack(
            [mixed(token, factors, 0.5) for token in np.asarray(x, np.float64).reshape(-1, 5)]
        )
        np.testing.assert_allclose((y - bare).reshape(-1, y.shape[-1]), expected, atol=2e-5)
    np.testing.assert_allclose(with_factors[2] - without[2], 0.5 * x @ plain["a"] @ plain["b"], atol=1e-5)


def test_gates_of_bf16_activations_are_float32(projection):
    factors = mixture(3, 4, seed=2)
    none = jax.tree.map(lambda leaf: 0 * leaf.astype(jnp.bfloat16), nnx.state(projection))
    x = jax.random.normal(jax.random.key(2), (6, 5)).astype(jnp.bfloat16)
    y = nnx.merge(nnx.graphdef(projection), none)(x, factors, 1.0)
    exact = np.stack([mixed(token, factors, 1.0) for token in np.asarray(x, np.float64)])
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=2.0**-8, atol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_one_expert_is_what_no_router_is_bit_for_bit(projection, jit):
    factors = mixture(1, 4, seed=2)
    x = jax.random.normal(jax.random.key(2), (64, 5))
    plain = {leaf: values for leaf, values in factors.items() if leaf != "router"}
    map_by = jax.jit(lambda x, factors: projection(x, factors, 0.5)) if jit else partial(_mapped, projection)
    np.testing.assert_array_equal(map_by(x, factors), map_by(x, plain))


def _mapped(projection: Projection, x: jax.Array, factors: dict[str, jax.Array]) -> jax.Array:
    return projection(x, factors, 0.5)


def test_a_router_learns_only_once_experts_add_something(projection):
    factors = mixture(3, 4, seed=2)
    x = jax.random.normal(jax.random.key(2), (6, 5))

    def gradient(factors: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return jax.grad(lambda factors: jnp.square(projection(x, factors, 1.0)).sum())(factors)

    fresh = gradient({**factors, "b": 0 * factors["b"]})
    np.testing.assert_array_equal(fresh["router"], 0)
    assert jnp.abs(fresh["b"]).max() > 0
    assert jnp.abs(gradient(factors)["router"]).max() > 0.1


def test_without_routers_the_program_has_no_trace_of_them(projection, factors):
    x = jnp.ones((2, 5))
    program = str(jax.make_jaxpr(lambda x: projection(x, factors, 1.0))(x))
    assert program.count("dot_general") == 3
    assert "exp" not in program
