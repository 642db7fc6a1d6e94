"""Linear maps of a tower and the low-rank updates that an adapter adds to them."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from pamctl.models.quantization import numbers_of
from pamctl.models.trees import PRODUCT

Factors = Mapping[str, jax.Array]
"""One adapted projection: "a" (in, r) and "b" (r, out), float32; of E experts also "router" (in, E), float32.

Expert e has columns e r/E to (e + 1) r/E of a, and these rows of b.
"""

LoraLayer = Mapping[str, Factors]
"""The factors of one layer by kind (`q_proj`, `fc1`, ...); kinds that are not adapted are absent."""


class Projection(nnx.Module):
    """y = x Wᵀ + bias + scale (x A) B, with W (out, in) as checkpoints hold it.

    With a router R the update is that of each expert times its gate, sum_e softmax(x R)_e scale (x A_e) B_e.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (outputs, inputs)) * inputs**-0.5)
        if bias:
            self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array, factors: Factors | None, scale: jax.Array | float) -> jax.Array:
        """Map x (..., in) to (..., out) in x's dtype; the low-rank update is computed in float32."""
        (y,) = projected(x, [(self, factors)], scale)
        return y


def projected(
    x: jax.Array, maps: Sequence[tuple[Projection, Factors | None]], scale: jax.Array | float
) -> list[jax.Array]:
    """Map x (..., in) by several projections of the same inputs: (..., out) each, in x's dtype.

    One product with the A of all of them side by side serves every low-rank update.
    """
    # Two dimensions, because the gradient of a batched product is twice as slow on a CPU.
    rows = x.reshape(-1, x.shape[-1])
    adapted = [factors["a"] for _, factors in maps if factors is not None]
    lows: Iterator[jax.Array] = iter(())
    if adapted:
        low = checkpoint_name(rows.astype(jnp.float32) @ jnp.concatenate(adapted, axis=1), PRODUCT)
        lows = iter(jnp.split(scale * low, np.cumsum([a.shape[1] for a in adapted])[:-1], axis=1))
    gates = _gates(rows, [factors["router"] for _, factors in maps if factors and "router" in factors])
    outputs = []
    for projection, factors in maps:
        y = rows @ numbers_of(projection.weight.get_value()).T
        if hasattr(projection, "bias"):
            y = y + projection.bias[...]
        if factors is not None:
            low = _gated(next(lows), next(gates)) if "router" in factors else next(lows)
            y = (y + low @ factors["b"]).astype(x.dtype)
        outputs.append(checkpoint_name(y, PRODUCT).reshape(*x.shape[:-1], -1))
    return outputs


def _gates(rows: jax.Array, routers: Sequence[jax.Array]) -> Iterator[jax.Array]:
    """Softmax of rows (n, in) by each router over all of its experts: (n, E) each, float32.

    The routers have a product of their own, so that one expert is bit for bit what no router is.
    """
    if not routers:
        return iter(())
    logits = checkpoint_name(rows.astype(jnp.float32) @ jnp.concatenate(routers, axis=1), PRODUCT)
    each = jnp.split(logits, np.cumsum([router.shape[1] for router in routers])[:-1], axis=1)
    return map(jax.nn.softmax, each)


def _gated(low: jax.Array, gates: jax.Array) -> jax.Array:
    """Multiply low (n, r), the experts side by side, by the gates (n, E)."""
    return (low.reshape(*gates.shape, -1) * gates[..., None]).reshape(low.shape)
