"""What a task takes over from the tasks before it: adapters, and examples to be replayed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pamctl.adapters import Adapter, open_adapter
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.training.replay_buffer import ReplayBuffer, read_buffer
from pamctl.training.slow_adapter import fast_adapter


@dataclass(frozen=True)
class Inheritance:
    """The adapters of the tasks before.

    Attributes:
        global_adapter: the state after them; None for a first task.
        previous: what `train-task` wrote for the task before, where merging made another adapter of it.
    """

    global_adapter: Adapter | None = None
    previous: Adapter | None = None

    def newest(self, *, fast: bool) -> Adapter | None:
        """The adapter of the task before as it was trained.

        Args:
            fast: take the fast one that lies beside it, if there is one.
        """
        last = self.previous or self.global_adapter
        return (fast_adapter(last) if fast and last is not None else None) or last

    @cached_property
    def buffer(self) -> ReplayBuffer | None:
        """The examples kept for replay, beside the adapter that was trained last."""
        last = self.previous or self.global_adapter
        return None if last is None or last.origin is None else read_buffer(last.origin.folder)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before trusting the adapters."""
        adapters = (self.global_adapter, self.previous)
        return tuple(note for adapter in adapters if adapter is not None for note in adapter.notes)


def inherited(global_adapter: str | Path | None, previous: str | Path | None = None) -> Inheritance:
    """Open the adapters of the tasks before.

    Raises:
        Refusal: one cannot be used.
        UsageRefusal: only the previous one is given.
    """
    if global_adapter is None:
        if previous is not None:
            raise UsageRefusal(
                "--previous without --global", "name the state after those tasks with --global"
            )
        return Inheritance()
    state = open_adapter(global_adapter, routers=True)
    if previous is None:
        return Inheritance(state)
    last = open_adapter(previous, routers=True)
    if None not in (state.base_fingerprint, last.base_fingerprint) and (
        state.base_fingerprint != last.base_fingerprint
    ):
        raise Refusal(
            f"{last.name} was trained on another base than {state.name}", "name two of one sequence"
        )
    return Inheritance(state, last)
