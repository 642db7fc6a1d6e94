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
"""One adapted projection: "a" (in, r) and "b" (r, out), float32."""

LoraLayer = Mapping[str, Factors]
"""The factors of one layer by kind (`q_proj`, `fc1`, ...); kinds that are not adapted are absent."""


class Projection(nnx.Module):
    """y = x Wᵀ + bias + scale (x A) B, with W (out, in) as checkpoints hold it."""

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
    outputs = []
    for projection, factors in maps:
        y = rows @ numbers_of(projection.weight.get_value()).T
        if hasattr(projection, "bias"):
            y = y + projection.bias[...]
        if factors is not None:
            y = (y + next(lows) @ factors["b"]).astype(x.dtype)
        outputs.append(checkpoint_name(y, PRODUCT).reshape(*x.shape[:-1], -1))
    return outputs
