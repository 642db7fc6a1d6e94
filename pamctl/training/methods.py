"""The methods as points on three axes: how a task starts, what is added during training, how it is merged."""

from dataclasses import dataclass
from typing import Literal

from pamctl.refusal import UsageRefusal

Start = Literal["global", "previous", "fresh"]


@dataclass(frozen=True)
class Method:
    """One continual-learning method; nothing else in the package asks for a method by its name.

    Attributes:
        name: what `--method` takes.
        start: where the task adapter starts from: a clone of the global adapter, the adapter of the task
            before, or fresh LoRA. The first task of a sequence always starts fresh.
        aligns: whether weights in conflict with the global adapter are put back during training.
        merge: method of `pamctl.merging` that joins the task adapter to the global one, None for none.
    """

    name: str
    start: Start
    aligns: bool
    merge: str | None


METHODS = {
    method.name: method
    for method in (
        Method("finetune", start="previous", aligns=False, merge=None),
        Method("average", start="global", aligns=False, merge="average"),
        Method("pam", start="global", aligns=True, merge="average"),
    )
}

FIRST_TASK = METHODS["finetune"]
"""Whatever the method: before a first task nothing is there to align to (Algorithm 1 begins at t = 2)."""


def method_named(name: str) -> Method:
    """Return the method of that name, or refuse it with the names there are."""
    if name not in METHODS:
        raise UsageRefusal(f"no method is called {name!r}", f"use one of: {', '.join(METHODS)}")
    return METHODS[name]
