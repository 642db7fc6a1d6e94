"""What is told of each step, and when: numbers are read in groups, so that steps need not wait for them."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pamctl.refusal import Refusal
from pamctl.training.configuration import Configuration
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.optimizer import rates_of, schedule
from pamctl.training.realignment import Anchor, Counts, to_event
from pamctl.training.throughput import StepWork, peak_flops

SECONDS_BETWEEN_READS = 0.5
LARGEST_RATIO = 10
"""Of a term to the cross-entropy, without a warning."""


class Diverged(Refusal):
    """A number is no longer finite, and would not be if the run were repeated."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        loss, learning_rate: of the newest step.
        examples_per_second, tokens_per_second: since the progress told before; image tokens count.
        mfu: percent of the devices' peak that the step's arithmetic is; None where the peak is not known.
        conflicts: percent of all weights that the newest realignment put back; None before the first.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    examples_per_second: float
    tokens_per_second: float
    mfu: float | None = None
    conflicts: float | None = None


class EventSink(Protocol):
    """Takes what happens at each step."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None: ...


class StepResult(NamedTuple):
    """A step whose numbers may still be on the device.

    Attributes:
        terms: the parts of the loss that terms have, by name.
        counts: of the weights put back after it; None where none were looked at.
        examples, text_tokens, targets: in the whole batch.
    """

    step: int
    loss: jax.Array
    terms: Mapping[str, jax.Array]
    counts: Counts | None
    examples: int
    text_tokens: int
    targets: int


class Reports:
    """Steps whose numbers are still on the device, written to the log in order once they are read.

    Args:
        work: the arithmetic of a step.
        board: told the same events as the log.
        on_step: told after each reading, about twice a second.
        warn: told once of a term that is many times the cross-entropy.
    """

    def __init__(
        self,
        config: Configuration,
        anchor: Anchor | None,
        log: MetricsLog,
        work: StepWork,
        *,
        board: EventSink | None = None,
        on_step: Callable[[Progress], None] | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._config, self._anchor, self._log, self._work = config, anchor, log, work
        self._sinks: tuple[EventSink, ...] = (log,) if board is None else (log, board)
        self._on_step, self._warn = on_step, warn
        self._warned: set[str] = set()
        self._peak = peak_flops(jax.devices())
        self._rates = config.learning_rate * np.asarray(schedule(rates_of(config), jnp.arange(config.steps)))
        self._unread: list[StepResult] = []
        self._read_at = time.monotonic()
        self._conflicts: float | None = None

    def add(self, result: StepResult) -> None:
        """Take a step."""
        self._unread.append(result)
        if time.monotonic() - self._read_at >= SECONDS_BETWEEN_READS:
            self.settle()

    def settle(self) -> None:
        """Read and log everything so far; refuse the first number that is not finite."""
        if not self._unread:
            return
        for result in self._unread:
            loss = float(result.loss)
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {result.step}", self._way_on())
            rate = _short(self._rates[result.step - 1])
            event: dict[str, Any] = {"step": result.step, "loss": _short(loss), "learning_rate": rate}
            if result.terms:
                event["terms"] = {name: _short(float(part)) for name, part in result.terms.items()}
                self._warn_of_large(result.step, loss, event["terms"])
            self._event("step", event)
            if result.counts is not None and self._anchor is not None:
                report = self._anchor.report(result.counts)
                if report is None:
                    raise Diverged(f"a weight is no longer a number at step {result.step}", self._way_on())
                shares = to_event(report)
                self._conflicts = shares["conflicts"]["percent"]["overall"]
                self._event("align", {"step": result.step, **shares})
        self._log.flush()
        self._tell(loss, rate)
        self._unread.clear()

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.event(name, fields)

    def _warn_of_large(self, step: int, loss: float, terms: Mapping[str, float]) -> None:
        """Warn once of a term that leaves nothing of the gradient to the cross-entropy."""
        rest = loss - sum(terms.values())
        for name, part in terms.items():
            if part > LARGEST_RATIO * rest and name not in self._warned:
                self._warned.add(name)
                self._warn(
                    f"term {name} is {part / max(rest, 1e-9):.0f} times the cross-entropy at step {step} and "
                    f"takes the most of the clipped gradient: lower it with --term {name}:weight=..."
                )

    def _tell(self, loss: float, rate: float) -> None:
        """Tell how fast the steps read just now were."""
        now, step, batch = time.monotonic(), self._unread[-1].step, self._unread[-1].examples
        seconds, self._read_at = max(now - self._read_at, 1e-9), now
        if self._on_step is None:
            return
        steps = len(self._unread)
        text, targets = (sum(getattr(of, name) for of in self._unread) for name in ("text_tokens", "targets"))
        flops = self._work.flops(steps * batch, text, targets)
        self._on_step(
            Progress(
                step=step,
                steps=self._config.steps,
                loss=loss,
                learning_rate=rate,
                examples_per_second=steps * batch / seconds,
                tokens_per_second=(steps * batch * self._work.image_tokens + text) / seconds,
                mfu=None if self._peak is None else 100 * flops / seconds / self._peak,
                conflicts=self._conflicts,
            )
        )

    def _way_on(self) -> str:
        return f"lower --lr (it is {self._config.learning_rate}), or raise the warm-up by training longer"


def _short(number: float) -> float:
    """The number with the digits that a float32 has, and no more."""
    return float(f"{number:.7g}")
