"""Learning without forgetting: on the new task's batches, answer as the adapter before it would have."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from pamctl.models import gemma
from pamctl.models.config import TextConfig
from pamctl.models.trees import Tree
from pamctl.training.terms.step import Step, check_weight


@dataclass(frozen=True)
class Lwf:
    """mean over examples, mean over suffix tokens, of KL(softmax(z_before / T) || softmax(z / T)).

    z_before are the logits of the adapter before, on the same base and the same true prefix of the answer, by
    a second forward pass in the same step. The gradient is that of the soft cross-entropy, from which the KL
    differs by a constant.

    Parameters:
        weight: the original paper's 1.
        temperature: T, the original paper's 2.
        t_squared: multiply by T², so that the gradient keeps its size when T changes; off, as in avalanche.

    Source: Li and Hoiem, arXiv 1606.09282. PAM's paper names no values.
    """

    weight: float = 1.0
    temperature: float = 2.0
    t_squared: bool = False

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature:g}, not above 0")

    def __call__(self, step: Step) -> jax.Array:
        before = step.states_of(step.reference)
        divergence = step.mean_over_suffix(partial(_divergence, self.temperature), step.hidden, before)
        return divergence * self.temperature**2 if self.t_squared else divergence


def _divergence(
    temperature: float, config: TextConfig, model: Tree, hidden: jax.Array, before: jax.Array
) -> jax.Array:
    """KL of tokens (...) from the states (..., d) of either adapter."""
    now, then = (
        jax.nn.log_softmax(gemma.unembed(config, model, states) / temperature)
        for states in (hidden, jax.lax.stop_gradient(before))
    )
    return (jnp.exp(then) * (then - now)).sum(-1)


TERM = Lwf
