"""Training one task: `train_task` writes an adapter, `plan_task` says what it would do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pamctl.training.plan import plan_task
    from pamctl.training.task_run import train_task

__all__ = ["plan_task", "train_task"]


def __getattr__(name: str) -> Any:
    # Late, because importing jax takes a second that `pamctl --help` does not have.
    if name in __all__:
        from pamctl.training import plan, task_run

        return getattr(plan if name == "plan_task" else task_run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
