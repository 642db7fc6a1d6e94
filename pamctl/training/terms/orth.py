"""O-LoRA: the input-side factors of a new task stand at right angles to those of the tasks before."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pamctl.training.terms.step import Step, check_at_least, check_weight

Power = Literal["abs", "square"]
Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Orthogonality:
    """sum over modules and tasks before of sum_jk |(A_before A_newᵀ)_jk|, A (r, in) the input-side factor.

    Parameters:
        weight: lambda_1, 0.5 in the released code; it sums over modules and r², so that thousands are usual
            for a large model: `reduction=mean` is free of that.
        power: abs, as the released code; square, as the paper prints.
        reduction: sum, as released, or mean over all entries.
        norm_weight: lambda_2 relative to `weight`, of the sum of the norms of the new factors; released: 0.

    Source: Wang et al., arXiv 2310.14152, and cmnfriend/O-LoRA; its author tunes lambda_1 in 0-5.
    """

    weight: float = 0.5
    power: str = "abs"
    reduction: str = "sum"
    norm_weight: float = 0.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_at_least("norm_weight", self.norm_weight, 0)
        for name, value, allowed in (
            ("power", self.power, get_args(Power)),
            ("reduction", self.reduction, get_args(Reduction)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, not one of {', '.join(allowed)}")

    def __call__(self, step: Step) -> jax.Array:
        size = jnp.abs if self.power == "abs" else jnp.square
        products = [
            size(jnp.einsum("lij,lik->ljk", step.reference[tower][kind]["a"], factors["a"]))
            for tower, kinds in step.lora.items()
            for kind, factors in kinds.items()
        ]
        total = sum((of.sum() for of in products), jnp.float32(0))
        if self.reduction == "mean":
            total = total / sum(of.size for of in products)
        if not self.norm_weight:
            return total
        return total + self.norm_weight * sum(map(_norm, jax.tree.leaves(step.lora)), jnp.float32(0))


def _norm(factors: jax.Array) -> jax.Array:
    """The sum over layers of the norms; with a gradient of 0, not NaN, where a factor is 0."""
    squares = jnp.square(factors).sum((1, 2))
    return jnp.sqrt(jnp.where(squares > 0, squares, 1)).sum(where=squares > 0)


TERM = Orthogonality
