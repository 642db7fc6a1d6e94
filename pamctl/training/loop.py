"""The training loop: batch, step, realign, log, checkpoint, in that order, until the last step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from pamctl.models.base import Base
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import Lora, image_features, suffix_loss
from pamctl.models.text import TextBatch
from pamctl.models.trees import Tree
from pamctl.refusal import Preempted
from pamctl.training.batches import EncodedSplit
from pamctl.training.checkpoints import Checkpoint, Checkpoints
from pamctl.training.configuration import Configuration
from pamctl.training.epochs import batch_indices
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.optimizer import Rates, optimizer, rates_of
from pamctl.training.realignment import Anchor
from pamctl.training.reports import Progress, Reports
from pamctl.training.stop_request import StopRequest


class State(NamedTuple):
    """What a step changes: the task adapter W' and the optimiser's moments."""

    lora: Lora
    optimizer: optax.OptState


class StepNumbers(NamedTuple):
    """The numbers of a step that are traced, so that another task or seed is no new compilation."""

    scale: jax.Array
    label_smoothing: jax.Array
    rates: Rates

    @classmethod
    def of(cls, config: Configuration) -> "StepNumbers":
        """Put the numbers of a configuration on device once."""
        return cls(jnp.float32(config.scale), jnp.float32(config.label_smoothing), rates_of(config))


@dataclass(frozen=True)
class Run:
    """One task to be trained: all that the loop reads and nothing that it changes.

    Attributes:
        start: the task adapter before the first step; it is not changed.
        anchor: the global adapter, with thresholds where the method aligns; None for a first task.
    """

    base: Base
    split: EncodedSplit
    configuration: Configuration
    start: Lora
    anchor: Anchor | None


def train(
    run: Run,
    log: MetricsLog,
    *,
    resume_from: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Lora:
    """Train one task and return its adapter W', on device.

    Raises:
        Refusal: the loss, or a weight at a realignment, is no longer finite, or a checkpoint cannot be saved.
        Preempted: `stop` was requested; the state is in a checkpoint.
    """
    config = run.configuration
    numbers, state, first = StepNumbers.of(config), initial_state(run.start), 1
    if resume_from is not None:
        state, first = resume_from.state, resume_from.step + 1
    reports = Reports(config, run.anchor, log, on_step, done=first - 1)

    for step in range(first, config.steps + 1):
        images, texts = run.split.batch(batch_indices(len(run.split), config.batch_size, config.seed, step))
        state, loss = train_step(run.base.config, run.base.parameters, state, images, texts, numbers)
        counts = None
        if run.anchor is not None and config.alignment and step % config.alignment.align_every == 0:
            aligned, counts = run.anchor.realign(state.lora)
            state = state._replace(lora=aligned)
        reports.add(step, loss, counts)
        stopping = stop is not None and stop.requested
        if checkpoints is not None and (stopping or step % checkpoints.every == 0) and step < config.steps:
            reports.settle()
            checkpoints.save(step, state, log.synced())
        if stopping and checkpoints is not None and step < config.steps:
            checkpoints.settle()
            raise Preempted(
                f"stopped after step {step} of {config.steps}; a checkpoint is in {checkpoints.folder}",
                "run the same command with --resume",
            )
    reports.settle()
    if checkpoints is not None:
        checkpoints.settle()
    return state.lora


def initial_state(start: Lora) -> State:
    """Return the state before the first step: a copy of `start`, because a step consumes its state."""
    lora = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), start)
    return State(lora, optimizer(Rates(0.0, 0.0, 1.0, 0, 1)).init(lora))


@partial(jax.jit, static_argnames="config", donate_argnames="state")
def train_step(
    config: PaliGemmaConfig,
    params: Tree,
    state: State,
    images: jax.Array,
    texts: TextBatch,
    numbers: StepNumbers,
) -> tuple[State, jax.Array]:
    """One optimiser step: the new state, and the mean loss of the batch before it."""

    def loss_of(lora: Lora) -> jax.Array:
        features = images
        if images.ndim > 3:  # pixels: the adapter changes what the images become
            features = image_features(config, params, lora, numbers.scale, images)
        return suffix_loss(
            config, params, lora, numbers.scale, features, texts, numbers.label_smoothing
        ).mean()

    loss, gradient = jax.value_and_grad(loss_of)(state.lora)
    updates, moments = optimizer(numbers.rates).update(gradient, state.optimizer, state.lora)
    return State(optax.apply_updates(state.lora, updates), moments), loss
