"""What a term of the loss sees of a training step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import Lora, mean_over_suffix, suffix_states
from pamctl.models.text import TextBatch
from pamctl.models.trees import Remat, Tree


@dataclass(frozen=True)
class Step:
    """One batch on its way to a loss.

    Attributes:
        lora: the factors that are trained.
        reference: the global adapter, or that of the task before; constant, to be used with scale 1.
        slow: the moving average of `lora` over the steps; {} for a method without one.
        scale: what the update of `lora` is multiplied by.
        features: (b, n, d), image tokens.
        texts: the batch's texts.
        hidden: (b, suffix_width, d), the states from which suffix tokens are predicted.
    """

    config: PaliGemmaConfig
    params: Tree
    lora: Lora
    reference: Lora
    slow: Lora
    scale: jax.Array | float
    features: jax.Array
    texts: TextBatch
    hidden: jax.Array
    remat: Remat

    def states_of(self, lora: Lora, scale: jax.Array | float = 1.0) -> jax.Array:
        """What `hidden` is with other factors, as a constant: the gradient does not go there."""
        states = partial(suffix_states, self.config, self.params, remat=self.remat)
        return jax.lax.stop_gradient(states(lora, scale, jax.lax.stop_gradient(self.features), self.texts))

    def mean_over_suffix(self, of_tokens: Callable[..., jax.Array], *given: jax.Array) -> jax.Array:
        """The mean over examples of the mean over suffix tokens of something that needs logits."""
        return mean_over_suffix(self.config, self.params, self.texts, of_tokens, *given).mean()


class Term(Protocol):
    """A frozen dataclass whose fields are the term's parameters; it raises ValueError for a bad one."""

    @property
    def weight(self) -> float:
        """What the term is multiplied by."""
        ...

    def __call__(self, step: Step) -> jax.Array:
        """The term before its weight: a float32 scalar."""
        ...


def check_weight(weight: float) -> None:
    """Raise ValueError for a weight that is negative or not finite."""
    check_at_least("weight", weight, 0)


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError for a parameter below `least` or not finite."""
    if not (least <= value < math.inf):
        raise ValueError(f"{name} is {value:g}, not {least:g} or more")
