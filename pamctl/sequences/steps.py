"""The steps that a sequence is made of; each is a command, and each leaves something behind by its name.

Paths are relative to the folder of the run.
"""

from dataclasses import dataclass

from pamctl.alignment import Scope
from pamctl.training.configuration import Settings
from pamctl.training.methods import Merging

RESULTS, DIAGNOSTICS, PREDICTIONS = "results.jsonl", "diagnostics.jsonl", "predictions.jsonl"


@dataclass(frozen=True)
class Train:
    """`pamctl train-task`.

    Attributes:
        tasks: one, or several that are learned at once.
        settings: with method and seed.
        before: the global adapter; None for a first task.
        previous: what was trained on the task before, where a method needs it beside the global adapter.
    """

    tasks: tuple[str, ...]
    settings: Settings
    out: str
    before: str | None = None
    previous: str | None = None


@dataclass(frozen=True)
class Prune:
    """`pamctl align` of a task adapter with every weight that conflicts put back (paper, Fig. 3)."""

    trained: str
    before: str
    out: str


@dataclass(frozen=True)
class Merge:
    """`pamctl merge` in factor space; `by` has the method and its parameters."""

    before: str
    trained: str
    by: Merging
    out: str


@dataclass(frozen=True)
class Score:
    """`pamctl eval` on test splits; without an adapter, the base.

    Attributes:
        file: the results are appended to.
    """

    adapter: str | None
    tasks: tuple[str, ...]
    order: str | None = None
    run: str | None = None
    file: str = RESULTS


@dataclass(frozen=True)
class Diagnose:
    """What the adapters of a stage tell of each other; no command, for it changes no number.

    Attributes:
        top_p, scope: of the method, by which important weights are told apart.
        stage: order, seed, system and task.
        pruned: None where nothing was merged.
    """

    before: str
    trained: str
    state: str
    pruned: str | None
    top_p: float
    scope: Scope
    stage: tuple[str, int, str, str]


Step = Train | Prune | Merge | Score | Diagnose
