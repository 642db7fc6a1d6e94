"""Sequences of tasks: `run_sequence` does orders x seeds x methods, each trained, merged and evaluated."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pamctl.sequences.run import run_sequence

__all__ = ["run_sequence"]


def __getattr__(name: str) -> Any:
    # Late, because importing jax takes a second that `pamctl --help` does not have.
    if name == "run_sequence":
        from pamctl.sequences.run import run_sequence

        return run_sequence
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
