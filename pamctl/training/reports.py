"""What is told of each step, and when: numbers are read in groups, so that steps need not wait for them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pamctl.refusal import Refusal
from pamctl.training.configuration import Configuration
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.optimizer import rates_of, schedule
from pamctl.training.realignment import Anchor, Counts, to_event

SECONDS_BETWEEN_READS = 0.5


class Diverged(Refusal):
    """A number is no longer finite, and would not be if the run were repeated."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        loss: of the newest step.
        examples_per_second: since the progress told before.
    """

    step: int
    steps: int
    loss: float
    examples_per_second: float


class Reports:
    """Steps whose numbers are still on the device, written to the log in order once they are read.

    Args:
        on_step: told after each reading, about twice a second.
        done: steps before the first one added.
    """

    def __init__(
        self,
        config: Configuration,
        anchor: Anchor | None,
        log: MetricsLog,
        on_step: Callable[[Progress], None] | None,
        done: int,
    ) -> None:
        self._config, self._anchor, self._log, self._on_step = config, anchor, log, on_step
        self._rates = config.learning_rate * np.asarray(schedule(rates_of(config), jnp.arange(config.steps)))
        self._unread: list[tuple[int, jax.Array, Counts | None]] = []
        self._done, self._read_at = done, time.monotonic()

    def add(self, step: int, loss: jax.Array, counts: Counts | None) -> None:
        """Take the loss of a step and, where weights were put back after it, the counts."""
        self._unread.append((step, loss, counts))
        if time.monotonic() - self._read_at >= SECONDS_BETWEEN_READS:
            self.settle()

    def settle(self) -> None:
        """Read and log everything so far; refuse the first number that is not finite."""
        if not self._unread:
            return
        for step, on_device, counts in self._unread:
            loss = float(on_device)
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {step}", self._way_on())
            self._log.event(
                "step", {"step": step, "loss": _short(loss), "learning_rate": _short(self._rates[step - 1])}
            )
            if counts is not None and self._anchor is not None:
                report = self._anchor.report(counts)
                if report is None:
                    raise Diverged(f"a weight is no longer a number at step {step}", self._way_on())
                self._log.event("align", {"step": step, **to_event(report)})
        self._unread.clear()
        self._log.flush()
        now = time.monotonic()
        if self._on_step is not None:
            seen = (step - self._done) * self._config.batch_size
            self._on_step(Progress(step, self._config.steps, loss, seen / max(now - self._read_at, 1e-9)))
        self._done, self._read_at = step, now

    def _way_on(self) -> str:
        return f"lower --lr (it is {self._config.learning_rate}), or raise the warm-up by training longer"


def _short(number: float) -> float:
    """The number with the digits that a float32 has, and no more."""
    return float(f"{number:.7g}")
