"""New factors beside frozen ones: the updates add up, as with O-LoRA's one adapter a task."""

import jax
import jax.numpy as jnp

from pamctl.models.paligemma import Lora


def stacked(frozen: Lora, lora: Lora, scale: jax.Array | float) -> Lora:
    """Return factors whose update, times `scale`, is that of `frozen` and `scale` times that of `lora`.

    The new factors stand behind the frozen ones along the rank.
    """

    def beside(old: dict[str, jax.Array], new: dict[str, jax.Array]) -> dict[str, jax.Array]:
        old = jax.lax.stop_gradient(old)
        return {
            "a": jnp.concatenate([old["a"], new["a"]], axis=2),
            "b": jnp.concatenate([old["b"] / scale, new["b"]], axis=1),
        }

    return {
        tower: {kind: beside(frozen[tower][kind], factors) for kind, factors in kinds.items()}
        for tower, kinds in lora.items()
    }
