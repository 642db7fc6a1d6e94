"""The methods as points on four axes: how a task starts, what is added, how it is merged, kind of adapter.

Nothing else in the package asks for a method by its name: adding one is adding a row here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pamctl.refusal import UsageRefusal

Start = Literal["global", "previous", "fresh"]
AdapterKind = Literal["single", "stack", "moe"]
Merging = Mapping[str, Any]
"""The `method` of a merge in factor space, and its parameters."""

AVERAGE: Merging = {"method": "average"}
TALL: Merging = {"method": "tall", "lambda": 0.1, "k": 2}


@dataclass(frozen=True)
class Method:
    """One continual-learning method.

    Attributes:
        name: what `--method` takes.
        start: where the task adapter starts from: a clone of the global adapter, the adapter of the task
            before, or fresh LoRA. The first task of a sequence always starts fresh.
        terms: what is added to the loss, as `--term` takes it; see `pamctl.training.terms`.
        aligns: whether weights in conflict with the global adapter are put back during training.
        replays: whether examples of the tasks before are trained on too.
        decay: of the slow adapter, the moving average over steps that is evaluated; 0 for none.
        adapter: `single` LoRA; `stack`, which adds new factors to those of the tasks before, which are
            frozen; `moe`, experts and a router.
        merge: how `pamctl merge` joins the task adapter to the global one; None for no merge.
        continues: False for a method that never goes on from an adapter: each task is learned alone.
        at_once: whether it learns several tasks in one run, mixed.
    """

    name: str
    start: Start
    terms: tuple[str, ...] = ()
    aligns: bool = False
    replays: bool = False
    decay: float = 0.0
    adapter: AdapterKind = "single"
    merge: Merging | None = field(default=None, hash=False)
    continues: bool = True
    at_once: bool = False

    @property
    def needs_previous(self) -> bool:
        """Whether a task needs what the task before wrote, beside the global adapter that came of it."""
        return self.merge is not None and (self.start == "previous" or self.replays)

    def first(self) -> "Method":
        """What is left for a first task: there is nothing to refer to (Algorithm 1 begins at t = 2)."""
        bare = replace(self, start="fresh", terms=(), aligns=False, merge=None)
        # A name of its own would keep methods from sharing the first task.
        return PLAIN if bare == replace(PLAIN, name=self.name) else bare


PLAIN = Method("finetune", start="fresh")

METHODS = {
    method.name: method
    for method in (
        Method("finetune", start="previous"),
        Method("average", start="global", merge=AVERAGE),
        Method("pam", start="global", aligns=True, merge=AVERAGE),
        Method("ties", start="global", merge={"method": "ties", "density": 0.9, "scope": "global"}),
        Method("tall", start="global", merge=TALL),
        Method("tall+pam", start="global", aligns=True, merge=TALL),
        Method("magmax", start="previous", merge={"method": "magmax"}),
        Method("lwf", start="previous", terms=("lwf",)),
        Method("lwf+pam", start="global", terms=("lwf",), aligns=True, merge=AVERAGE),
        Method("l2", start="previous", terms=("l2",)),
        Method("finetune+align", start="previous", aligns=True),
        Method("ilora", start="previous", decay=0.25),
        Method("olora", start="fresh", terms=("orth",), adapter="stack"),
        Method("moelora", start="previous", adapter="moe"),
        Method("er", start="previous", replays=True),
        Method("er+pam", start="global", aligns=True, replays=True, merge=AVERAGE),
        Method("independent", start="fresh", continues=False),
        Method("multitask", start="fresh", continues=False, at_once=True),
    )
}


def method_named(name: str) -> Method:
    """Return the method of that name, or refuse it with the names there are."""
    if name not in METHODS:
        raise UsageRefusal(f"no method is called {name!r}", f"use one of: {', '.join(METHODS)}")
    return METHODS[name]
