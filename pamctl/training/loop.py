"""The training loop: batch, step, realign, log, checkpoint, in that order, until the last step."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]

from pamctl.distributed import agree
from pamctl.models.base import Base
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import Lora, image_features, suffix_loss
from pamctl.models.text import TextBatch
from pamctl.models.trees import Remat, Tree
from pamctl.refusal import Preempted
from pamctl.training.batches import EncodedSplit, Indices
from pamctl.training.checkpoints import Checkpoint, Checkpoints
from pamctl.training.configuration import Configuration
from pamctl.training.epochs import batch_indices
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.optimizer import Rates, optimizer, rates_of
from pamctl.training.prefetching import made_ahead
from pamctl.training.realignment import Anchor
from pamctl.training.reports import EventSink, Progress, Reports, StepResult
from pamctl.training.stop_request import StopRequest
from pamctl.training.throughput import StepWork

STEPS_BETWEEN_AGREEMENTS = 8


class State(NamedTuple):
    """What a step changes: the task adapter W' and the optimiser's moments."""

    lora: Lora
    optimizer: optax.OptState


class StepNumbers(NamedTuple):
    """The numbers of a step that are traced, so that another task or seed is no new compilation."""

    scale: jax.Array | np.float32
    label_smoothing: jax.Array | np.float32
    rates: Rates

    @classmethod
    def of(cls, config: Configuration, sharding: jax.sharding.Sharding) -> "StepNumbers":
        """Put the numbers of a configuration on the devices once."""
        numbers = cls(np.float32(config.scale), np.float32(config.label_smoothing), rates_of(config))
        on_devices: StepNumbers = jax.device_put(numbers, sharding)
        return on_devices


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
    board: EventSink | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Lora:
    """Train one task and return its adapter W', on device.

    Raises:
        Refusal: the loss, or a weight at a realignment, is no longer finite, or a checkpoint cannot be saved.
        Preempted: `stop` was requested; the state is in a checkpoint.
    """
    config = run.configuration
    devices = run.base.devices
    numbers = StepNumbers.of(config, devices.replicated)
    state, first = initial_state(run.start), 1
    if resume_from is not None:
        state, first = resume_from.state, resume_from.step + 1
    work = StepWork.of(run.base.config, run.start, features_given=run.split.features_given)
    reports = Reports(config, run.anchor, log, work, board=board, on_step=on_step)
    how: dict[str, Any] = {"numbers": numbers, "accumulate": config.accumulate, "remat": config.remat}

    with closing(made_ahead(partial(_batch, run), range(first, config.steps + 1))) as batches:
        for step, (images, texts) in enumerate(batches, first):
            state, loss = train_step(run.base.config, run.base.parameters, state, images, texts, **how)
            counts = None
            if run.anchor is not None and config.alignment and step % config.alignment.align_every == 0:
                aligned, counts = run.anchor.realign(state.lora)
                state = state._replace(lora=aligned)
            reports.add(StepResult(step, loss, counts, *_tokens(run, step)))
            stopping = _stopping(stop, step)
            if checkpoints is None or step == config.steps:
                continue
            if stopping or step % checkpoints.every == 0:
                reports.settle()
                checkpoints.save(step, state, log.synced())
            if stopping:
                checkpoints.settle()
                raise Preempted(
                    f"stopped after step {step} of {config.steps}; a checkpoint is in {checkpoints.folder}",
                    "run the same command with --resume",
                )
    reports.settle()
    if checkpoints is not None:
        checkpoints.settle()
    return state.lora


def _batch(run: Run, step: int) -> tuple[jax.Array, TextBatch]:
    """The images and texts of a step (1-based), on the devices; this process reads its own rows alone."""
    devices = run.base.devices
    batch: tuple[jax.Array, TextBatch] = devices.put_batch(
        run.split.batch(_indices(run, step), devices.local_rows(run.configuration.batch_size))
    )
    return batch


def _stopping(stop: StopRequest | None, step: int) -> bool:
    """Whether the run ends after this step. Processes agree on that now and then: asking waits for a step."""
    if stop is None or jax.process_count() == 1:
        return stop is not None and stop.requested
    return step % STEPS_BETWEEN_AGREEMENTS == 0 and agree(stop.requested)


def _tokens(run: Run, step: int) -> tuple[int, int]:
    """Text tokens and, of these, suffix tokens of a step's whole batch."""
    indices, texts = _indices(run, step), run.split.texts
    length, prefix = (int(np.asarray(of)[indices].sum()) for of in (texts.length, texts.prefix_length))
    return length, length - prefix


def _indices(run: Run, step: int) -> Indices:
    config = run.configuration
    return batch_indices(len(run.split), config.batch_size, config.seed, step)


def initial_state(start: Lora) -> State:
    """Return the state before the first step: a copy of `start`, because a step consumes its state."""
    lora = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), start)
    state = State(lora, optimizer(Rates(0.0, 0.0, 1.0, 0, 1)).init(lora))
    # Like what a step returns: a state that lies in another way would be a second compilation.
    placed: State = jax.device_put(state, jax.tree.leaves(start)[0].sharding)
    return placed


@partial(jax.jit, static_argnames=("config", "accumulate", "remat"), donate_argnames="state")
def train_step(
    config: PaliGemmaConfig,
    params: Tree,
    state: State,
    images: jax.Array,
    texts: TextBatch,
    numbers: StepNumbers,
    *,
    accumulate: int = 1,
    remat: Remat = "elementwise",
) -> tuple[State, jax.Array]:
    """One optimiser step: the new state, and the mean loss of the batch before it.

    Args:
        images: features (b, n, d), or pixels (b, images, h, w, 3) that the tower sees in this step.
        accumulate: in how many parts the batch is worked on, one after the other.
        remat: what of each layer is computed again for the gradient.
    """

    def loss_of(lora: Lora, images: jax.Array, texts: TextBatch) -> jax.Array:
        features = images
        if images.ndim > 3:
            features = image_features(config, params, lora, numbers.scale, images, remat=remat)
        smoothing = numbers.label_smoothing
        losses = suffix_loss(config, params, lora, numbers.scale, features, texts, smoothing, remat=remat)
        return losses.mean()

    def add(total: tuple[jax.Array, Lora], part: tuple[jax.Array, TextBatch]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(state.lora, *part)), None

    if accumulate == 1:
        loss, gradient = jax.value_and_grad(loss_of)(state.lora, images, texts)
    else:
        nothing = jnp.float32(0), jax.tree.map(jnp.zeros_like, state.lora)
        total, _ = jax.lax.scan(add, nothing, _parts((images, texts), accumulate))
        loss, gradient = jax.tree.map(lambda leaf: leaf / accumulate, total)
    updates, moments = optimizer(numbers.rates).update(gradient, state.optimizer, state.lora)
    return State(optax.apply_updates(state.lora, updates), moments), loss


def _parts(batch: Any, count: int) -> Any:
    """The batch with a leading axis of parts; each takes every `count`-th row, so that no device waits."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1), batch)
