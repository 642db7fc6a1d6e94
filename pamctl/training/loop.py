"""The training loop: batch, step, realign, average, log, checkpoint, in that order, until the last step."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]

from pamctl.distributed import agree
from pamctl.models.base import Base
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import Lora, image_features, loss_of_states, suffix_states
from pamctl.models.trees import Remat, Tree
from pamctl.refusal import Preempted
from pamctl.training.batches import Batch, EncodedSplit
from pamctl.training.checkpoints import Checkpoint, Checkpoints
from pamctl.training.configuration import Configuration
from pamctl.training.epochs import Visits
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.optimizer import OptimizerState, Rates, optimizer, rates_of
from pamctl.training.prefetching import made_ahead
from pamctl.training.realignment import Anchor
from pamctl.training.reports import EventSink, Progress, Reports, StepResult
from pamctl.training.slow_adapter import followed, weight_of_slow
from pamctl.training.stacking import stacked
from pamctl.training.stop_request import StopRequest
from pamctl.training.terms import Term
from pamctl.training.terms.step import Step
from pamctl.training.throughput import StepWork

STEPS_BETWEEN_AGREEMENTS = 8


class State(NamedTuple):
    """What a step changes: the task adapter W', the optimiser's moments, and the slow adapter or {}."""

    lora: Lora
    optimizer: OptimizerState
    slow: Lora


class Losses(NamedTuple):
    """Of one batch, before the step: the whole loss, and each term's part of it, times its weight."""

    loss: jax.Array
    terms: dict[str, jax.Array]


class StepNumbers(NamedTuple):
    """The numbers of a step that are traced, so that another task or seed is no new compilation."""

    scale: jax.Array
    rates: Rates

    @classmethod
    def of(cls, config: Configuration, sharding: jax.sharding.Sharding) -> "StepNumbers":
        """Put the numbers of a configuration on the devices once."""
        numbers = cls(jnp.float32(config.scale), rates_of(config))
        on_devices: StepNumbers = jax.device_put(numbers, sharding)
        return on_devices


@dataclass(frozen=True)
class Run:
    """One task to be trained: all that the loop reads and nothing that it changes.

    Attributes:
        order: step (1-based) -> the visits of its batch, to examples of `split`.
        start: the task adapter before the first step; it is not changed.
        anchor: the global adapter with its thresholds; None where nothing is aligned.
        reference: the global adapter for terms, or what new factors are stacked on; {} where neither is.
        slow: the slow adapter before the first step; {} for a method without.
    """

    base: Base
    split: EncodedSplit
    configuration: Configuration
    order: Callable[[int], Visits]
    start: Lora
    anchor: Anchor | None
    reference: Lora = field(default_factory=dict)
    slow: Lora = field(default_factory=dict)

    @property
    def how(self) -> dict[str, Any]:
        """What `train_step` has to know beside its arrays."""
        config = self.configuration
        return {
            "accumulate": config.accumulate,
            "remat": config.remat,
            "terms": config.terms,
            "stack": config.adapter == "stack" and bool(self.reference),
        }


def train(
    run: Run,
    log: MetricsLog,
    *,
    resume_from: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
    board: EventSink | None = None,
    on_step: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> State:
    """Train one task and return its last state, on device.

    Raises:
        Refusal: the loss, or a weight at a realignment, is no longer finite, or a checkpoint cannot be saved.
        Preempted: `stop` was requested; the state is in a checkpoint.
    """
    config = run.configuration
    devices = run.base.devices
    numbers = StepNumbers.of(config, devices.replicated)
    state, first = initial_state(run.start, run.slow), 1
    if resume_from is not None:
        state, first = resume_from.state, resume_from.step + 1
    work = StepWork.of(
        run.base.config, run.start, features_given=run.split.features_given, frames=run.split.frames
    )
    reports = Reports(config, run.anchor, log, work, board=board, on_step=on_step, warn=warn)

    with closing(made_ahead(partial(_batch, run), range(first, config.steps + 1))) as batches:
        for step, batch in enumerate(batches, first):
            state, losses = train_step(
                run.base.config, run.base.parameters, state, batch, run.reference, numbers, **run.how
            )
            counts = None
            if run.anchor is not None and config.alignment and config.alignment.is_due(step, config.steps):
                aligned, moments, counts = run.anchor.realign(state.lora, state.optimizer)
                state = state._replace(lora=aligned, optimizer=moments)
            if config.decay:
                weight = weight_of_slow(step, config.decay)
                state = state._replace(slow=followed(state.slow, state.lora, weight))
            reports.add(StepResult(step, losses.loss, losses.terms, counts, *_sizes(run, step)))
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
    return state


def _batch(run: Run, step: int) -> Batch:
    """The batch of a step (1-based), on the devices; this process reads its own rows alone."""
    devices, visits = run.base.devices, run.order(step)
    batch: Batch = devices.put_batch(run.split.batch(visits, devices.local_rows(len(visits))))
    return batch


def _stopping(stop: StopRequest | None, step: int) -> bool:
    """Whether the run ends after this step. Processes agree on that now and then: asking waits for a step."""
    if stop is None or jax.process_count() == 1:
        return stop is not None and stop.requested
    return step % STEPS_BETWEEN_AGREEMENTS == 0 and agree(stop.requested)


def _sizes(run: Run, step: int) -> tuple[int, int, int]:
    """Examples, text tokens and, of these, suffix tokens of a step's whole batch."""
    visits = run.order(step)
    texts = run.split.texts_at(visits)
    length, prefix = (int(np.asarray(of).sum()) for of in (texts.length, texts.prefix_length))
    return len(visits), length, length - prefix


def initial_state(start: Lora, slow: Lora | None = None) -> State:
    """Return the state before the first step: a copy of `start`, because a step consumes its state."""
    lora, average = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (start, slow or {}))
    state = State(lora, optimizer(Rates(0.0, 0.0, 1.0, 0, 1)).init(lora), average)
    # Like what a step returns: a state that lies in another way would be a second compilation.
    placed: State = jax.device_put(state, jax.tree.leaves(start)[0].sharding)
    return placed


@partial(
    jax.jit,
    static_argnames=("config", "accumulate", "remat", "terms", "stack"),
    donate_argnames="state",
)
def train_step(
    config: PaliGemmaConfig,
    params: Tree,
    state: State,
    batch: Batch,
    reference: Lora,
    numbers: StepNumbers,
    *,
    accumulate: int = 1,
    remat: Remat = "elementwise",
    terms: tuple[tuple[str, Term], ...] = (),
    stack: bool = False,
) -> tuple[State, Losses]:
    """One optimiser step: the new state, and the mean losses of the batch before it.

    Args:
        batch: of it, the tower sees the pixels in this step, unless they are features.
        reference: what the terms hold the factors against, and what they are stacked on.
        accumulate: in how many parts the batch is worked on, one after the other.
        remat: what of each layer is computed again for the gradient.
        terms: added to the cross-entropy, by name.
        stack: whether the model sees the factors beside those of `reference`.
    """

    def loss_of(lora: Lora, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen = stacked(reference, lora, numbers.scale) if stack else lora
        features = batch.images
        if features.ndim > 3:
            features = image_features(config, params, seen, numbers.scale, features, remat=remat)
        hidden = suffix_states(config, params, seen, numbers.scale, features, batch.texts, remat)
        loss = loss_of_states(config, params, hidden, batch.texts, batch.smoothing).mean()
        step = Step(
            config, params, lora, reference, state.slow, numbers.scale, features, batch.texts, hidden, remat
        )
        parts = {name: term.weight * term(step) for name, term in terms}
        return sum(parts.values(), loss), parts

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, with_gradient(state.lora, part)), None

    with_gradient = jax.value_and_grad(loss_of, has_aux=True)
    if accumulate == 1:
        losses, gradient = with_gradient(state.lora, batch)
    else:
        parts = _parts(batch, accumulate)
        shapes = jax.eval_shape(with_gradient, state.lora, jax.tree.map(lambda leaf: leaf[0], parts))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, nothing, parts)
        losses, gradient = jax.tree.map(lambda leaf: leaf / accumulate, total)
    updates, moments = optimizer(numbers.rates).update(gradient, state.optimizer, state.lora)
    return State(optax.apply_updates(state.lora, updates), moments, state.slow), Losses(*losses)


def _parts(batch: Any, count: int) -> Any:
    """The batch with a leading axis of parts; each takes every `count`-th row, so that no device waits."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1), batch)
