"""How far the weights have moved: an L2 pull towards the adapter before."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pamctl.training.terms.step import Step, check_weight


@dataclass(frozen=True)
class WeightDistance:
    """sum over all factors of (W' - W)², W the global adapter or that of the task before, uniform weights.

    It is no weight decay, which pulls to 0.

    Parameters:
        weight: 0.01 by default; PAM's paper (its Fig. 4) names none. 1e-4 to 1 is the range to try.
    """

    weight: float = 0.01

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(self, step: Step) -> jax.Array:
        squares = jax.tree.map(lambda new, old: jnp.square(new - old).sum(), step.lora, step.reference)
        return jax.tree.reduce(jnp.add, squares)


TERM = WeightDistance
