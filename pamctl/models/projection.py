"""One linear map of a tower and the low-rank update that an adapter adds to it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from pamctl.models.quantization import numbers_of

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
        # Two dimensions, because the gradient of a batched product is twice as slow on a CPU.
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ numbers_of(self.weight.get_value()).T
        if hasattr(self, "bias"):
            y = y + self.bias[...]
        if factors is not None:
            low = rows.astype(jnp.float32) @ factors["a"]
            y = (y + (scale * low) @ factors["b"]).astype(x.dtype)
        return y.reshape(*x.shape[:-1], -1)
