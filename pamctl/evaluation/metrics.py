"""What the continual-learning metrics are: functions of an accuracy matrix, None where a cell is missing.

Notation: `after[t, i]` (T, T) is the score in percent of task i once task t was learned (and merged);
`trained[t]` (T,) that of task t before merging; `zero_shot[i]` (T,) that of the base. Missing cells are NaN.
The formulas are those of Lopez-Paz and Ranzato (2017) as the PAM paper's appendix states them, with the
diagonal of `after` in BWT: the paper's tables satisfy BWT (T - 1) / T = ACC - A_m, which needs that diagonal.
"""

import math
from collections.abc import Mapping

import numpy as np

FWT_VARIANT = (
    "Lopez-Paz and Ranzato: mean over tasks 2..T of the score one task before learning, minus zero-shot"
)
METRICS: Mapping[str, str] = {
    "ACC": "mean score over all tasks after the last one",
    "BWT": "mean over tasks 1..T-1 of the last score minus the score right after learning (and merging)",
    "FWT": FWT_VARIANT,
    "A_t": "mean score on each task right after training on it, before merging",
    "A_m": "mean score on each task right after learning it, after merging (A_t where nothing is merged)",
}


def final_accuracy(after: np.ndarray) -> float | None:
    """ACC = mean_i after[T-1, i]."""
    return _mean(after[-1])


def backward_transfer(after: np.ndarray) -> float | None:
    """BWT = mean_{i < T-1} after[T-1, i] - after[i, i]; None for a single task."""
    return _mean(after[-1, :-1] - np.diag(after)[:-1])


def forward_transfer(after: np.ndarray, zero_shot: np.ndarray) -> float | None:
    """FWT = mean_{i >= 1} after[i-1, i] - zero_shot[i]; None for a single task."""
    return _mean(np.diag(after, k=1) - zero_shot[1:])


def accuracy_when_trained(trained: np.ndarray) -> float | None:
    """A_t = mean_t trained[t]."""
    return _mean(trained)


def accuracy_when_merged(after: np.ndarray) -> float | None:
    """A_m = mean_t after[t, t]."""
    return _mean(np.diag(after))


def forgetting(after: np.ndarray) -> list[float | None]:
    """F_t = mean_{i < t} after[i, i] - after[t, i] for t = 2..T: points lost so far, lower is better."""
    return [_mean(np.diag(after)[:t] - after[t, :t]) for t in range(1, len(after))]


def metrics_of(after: np.ndarray, trained: np.ndarray, zero_shot: np.ndarray) -> dict[str, float | None]:
    """Every metric of `METRICS` by name."""
    return {
        "ACC": final_accuracy(after),
        "BWT": backward_transfer(after),
        "FWT": forward_transfer(after, zero_shot),
        "A_t": accuracy_when_trained(trained),
        "A_m": accuracy_when_merged(after),
    }


def identity_gap(after: np.ndarray) -> float | None:
    """|BWT (T - 1) / T - (ACC - A_m)|: 0 up to rounding, else the metrics contradict one another."""
    bwt, acc, merged = backward_transfer(after), final_accuracy(after), accuracy_when_merged(after)
    if bwt is None or acc is None or merged is None:
        return None
    return abs(bwt * (len(after) - 1) / len(after) - (acc - merged))


def _mean(values: np.ndarray) -> float | None:
    if len(values) == 0 or np.isnan(values).any():
        return None
    return math.fsum(values.tolist()) / len(values)
