"""Second tasks after `first`, and what tests of methods look at in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pamctl.adapters import open_adapter
from pamctl.training import train_task

BATCH, RATE, STEPS = 4, 0.02, 6
SETTINGS: dict[str, Any] = {"batch_size": BATCH, "learning_rate": RATE, "steps": STEPS}

Factors = dict[str, tuple[np.ndarray, np.ndarray]]
"""A (r, in) and B (out, r) by module."""


class Bench:
    """Trains on the base and the tasks of `inputs`; `out` takes what is written."""

    def __init__(self, inputs: Path, out: Path, **settings: Any) -> None:
        self.inputs, self.out = inputs, out
        self._settings = {"base": str(inputs / "base"), **SETTINGS, **settings}
        self._count = 0

    def __call__(self, method: str, task: str = "shapes", **given: Any) -> Path:
        """Train after `first`, where nothing else is said, and return the output."""
        self._count += 1
        how = {"global_adapter": self.inputs / "first", **self._settings, **given}
        out = self.out / f"{self._count}-{method}"
        return train_task(self.inputs / f"{task}.jsonl", out, method=method, **how)


def factors_of(folder: Path) -> Factors:
    """The factors of an adapter, experts' too."""
    adapter = open_adapter(folder, routers=True)
    found = {module: adapter.modules[module].folded() for module in adapter.shapes}
    return {module: (np.asarray(of.a), np.asarray(of.b)) for module, of in found.items()}


def same(one: Path, other: Path) -> bool:
    """Whether two adapters have the same factors, bit for bit."""
    ours, theirs = factors_of(one), factors_of(other)
    assert ours.keys() == theirs.keys()
    return all(
        mine.tobytes() == yours.tobytes()
        for module in ours
        for mine, yours in zip(ours[module], theirs[module], strict=True)
    )


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """The events of a name in the metrics.jsonl of an output."""
    told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in told if event["event"] == name]
