"""What the log of a training tells of the whole: how much was put back at a check, how large terms were."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from pamctl.training.metrics_log import FILE_NAME


def training_shares(folder: Path) -> dict[str, Any]:
    """Read the log in a folder that `train-task` wrote.

    Returns:
        realignments: how many there were.
        put_back_percent: of all weights at one of them, on average: overall and of A and of B; None without.
        terms_to_cross_entropy: of each term, its mean ratio over the steps.
    """
    events = [json.loads(line) for line in (folder / FILE_NAME).read_text(encoding="utf-8").splitlines()]
    checks = [event["conflicts"]["percent"] for event in events if event["event"] == "align"]
    steps = [event for event in events if event["event"] == "step" and "terms" in event]
    return {
        "realignments": len(checks),
        "put_back_percent": {part: _mean(check[part] for check in checks) for part in ("overall", "a", "b")}
        if checks
        else None,
        "terms_to_cross_entropy": {
            name: _mean(_ratio(step["terms"], name, step["loss"]) for step in steps)
            for name in (steps[0]["terms"] if steps else ())
        },
    }


def _ratio(terms: dict[str, float], name: str, loss: float) -> float:
    """A term's part of the loss over what no term is part of."""
    rest = loss - sum(terms.values())
    return terms[name] / rest if rest > 0 else 0.0


def _mean(numbers: Iterable[float]) -> float:
    return float(f"{fmean(numbers):.6g}")
