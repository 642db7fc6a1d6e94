"""How a gradient becomes an update: big_vision's recipe for PaliGemma, as an optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from pamctl.training.configuration import Configuration

OptimizerState = Any
"""The moments of `optimizer`, a tree of arrays."""


class Rates(NamedTuple):
    """The numbers of the optimiser, traced so that another task or seed is no new compilation.

    Attributes:
        steps: optimiser steps of the run.
        warmup_steps: steps of linear warm-up.
        clip: largest global norm of the gradient.
    """

    learning_rate: jax.Array | float
    weight_decay: jax.Array | float
    clip: jax.Array | float
    warmup_steps: jax.Array | int
    steps: jax.Array | int


def rates_of(config: Configuration) -> Rates:
    """Return the rates of a run on device; warm-up is rounded down to whole steps, as big_vision does."""
    return Rates(
        jnp.float32(config.learning_rate),
        jnp.float32(config.weight_decay),
        jnp.float32(config.clip),
        jnp.int32(int(config.warmup * config.steps)),
        jnp.int32(config.steps),
    )


def schedule(rates: Rates, count: jax.Array | int) -> jax.Array:
    """Return the factor on all updates after `count` of them: linear from 0, then a half cosine to 0."""
    count, warmup = jnp.asarray(count, jnp.float32), jnp.asarray(rates.warmup_steps, jnp.float32)
    progress = jnp.clip((count - warmup) / jnp.maximum(rates.steps - warmup, 1), 0, 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return cosine * jnp.where(warmup > 0, jnp.minimum(1, count / jnp.maximum(warmup, 1)), 1)


def optimizer(rates: Rates) -> optax.GradientTransformation:
    """Return update = -schedule * (learning_rate * adam(clipped gradient) + weight_decay * weight).

    The decay is absolute, as in big_vision: it follows the schedule but not the learning rate, so a decay d
    here is `optax.adamw(weight_decay=d / learning_rate)`.
    """
    return optax.chain(
        optax.clip_by_global_norm(rates.clip),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.scale(rates.learning_rate),
        optax.add_decayed_weights(rates.weight_decay),
        optax.scale_by_schedule(lambda count: -schedule(rates, count)),
    )


def first_moments_zero_where(state: OptimizerState, mask: Any) -> OptimizerState:
    """Return the state with Adam's first moment 0 where a mask, shaped as the weights, holds.

    The second moment stays: with both at 0 the next step would be many times the learning rate.
    """
    clipped, adam, *others = state
    moments = jax.tree.map(lambda marked, moment: jnp.where(marked, 0, moment), mask, adam.mu)
    return (clipped, adam._replace(mu=moments), *others)
