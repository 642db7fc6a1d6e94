"""What the continual-learning metrics are: functions of an accuracy matrix, None where a cell is missing.

Notation: `after[t, i]` (T, T) is the score in percent of task i once task t was learned (and merged);
`trained[t]` (T,) that of task t before merging; `zero_shot[i]` (T,) that of the base. Missing cells are NaN.
The formulas are those of Lopez-Paz and Ranzato (2017) as the PAM paper's appendix states them, with the
diagonal of `after` in BWT: the paper's tables satisfy BWT (T - 1) / T = ACC - A_m, which needs that diagonal.
"""

import math
from collections.abc import Mapping

import numpy as np

FWT = "lopez-paz"
"""The variant of FWT that counts where none is asked for."""
FWT_VARIANTS: Mapping[str, str] = {
    FWT: "mean over tasks 2..T of the score one task before learning minus zero-shot (Lopez-Paz and Ranzato)",
    "paper": "the PAM paper's Eq. 5 to the letter, which sums that over tasks 2..T-1 only and divides by T-1",
    "all-unseen": "mean over the states after tasks 1..T-1 of the mean over all tasks not learned by then of "
    "the score minus zero-shot",
}
METRICS: Mapping[str, str] = {
    "ACC": "mean score over all tasks after the last one",
    "BWT": "mean over tasks 1..T-1 of the last score minus the score right after learning (and merging)",
    "FWT": FWT_VARIANTS[FWT],
    "A_t": "mean score on each task right after training on it, before merging",
    "A_m": "mean score on each task right after learning it, after merging (A_t where nothing is merged)",
}
IDENTITY = "BWT (T - 1) / T = ACC - A_m"
FORGETTING: Mapping[str, str] = {
    "forgetting": "F_t for t = 2..T: mean over the tasks before t of the score right after learning less now",
    "forgetting_from_best": "the same from the best score since the task was learned (Chaudhry et al.)",
}


def definitions(fwt: str = FWT) -> dict[str, str]:
    """What each metric means, FWT in a variant, by name."""
    return {**METRICS, "FWT": f"{fwt}: {FWT_VARIANTS[fwt]}"}


def final_accuracy(after: np.ndarray) -> float | None:
    """ACC = mean_i after[T-1, i]."""
    return _mean(after[-1])


def backward_transfer(after: np.ndarray) -> float | None:
    """BWT = mean_{i < T-1} after[T-1, i] - after[i, i]; None for a single task."""
    return _mean(after[-1, :-1] - np.diag(after)[:-1])


def forward_transfer(after: np.ndarray, zero_shot: np.ndarray) -> float | None:
    """FWT = mean_{i >= 1} after[i-1, i] - zero_shot[i]; None for a single task."""
    return _mean(np.diag(after, k=1) - zero_shot[1:])


def forward_transfer_of_the_paper(after: np.ndarray, zero_shot: np.ndarray) -> float | None:
    """FWT = sum_{1 <= i < T-1} (after[i-1, i] - zero_shot[i]) / (T-1); 0 for two tasks, None for one."""
    gains = (np.diag(after, k=1) - zero_shot[1:])[:-1]
    if len(after) == 1 or np.isnan(gains).any():
        return None
    return math.fsum(gains.tolist()) / (len(after) - 1)


def transfer_to_all_unseen(after: np.ndarray, zero_shot: np.ndarray) -> float | None:
    """FWT = mean_{t < T-1} mean_{i > t} after[t, i] - zero_shot[i]; None for a single task."""
    gains = [_mean(after[t, t + 1 :] - zero_shot[t + 1 :]) for t in range(len(after) - 1)]
    known = [gain for gain in gains if gain is not None]
    return _mean(np.array(known)) if len(known) == len(gains) else None


def accuracy_when_trained(trained: np.ndarray) -> float | None:
    """A_t = mean_t trained[t]."""
    return _mean(trained)


def accuracy_when_merged(after: np.ndarray) -> float | None:
    """A_m = mean_t after[t, t]."""
    return _mean(np.diag(after))


def forgetting(after: np.ndarray) -> list[float | None]:
    """F_t = mean_{i < t} after[i, i] - after[t, i] for t = 2..T: points lost so far, lower is better."""
    return [_mean(np.diag(after)[:t] - after[t, :t]) for t in range(1, len(after))]


def forgetting_from_best(after: np.ndarray) -> list[float | None]:
    """The same from the best state so far: mean_{i < t} max_{i <= s < t} after[s, i] - after[t, i].

    Chaudhry et al. (2018) take the maximum over all states before t; here it begins where the task was
    learned, for before that it may not have been evaluated.
    """
    lower = np.where(np.tri(len(after), dtype=bool), after, -np.inf)
    return [_mean(lower[:t, :t].max(axis=0) - after[t, :t]) for t in range(1, len(after))]


def forward_transfers(after: np.ndarray, zero_shot: np.ndarray) -> dict[str, float | None]:
    """FWT by the name of its variant."""
    formulas = (forward_transfer, forward_transfer_of_the_paper, transfer_to_all_unseen)
    return {name: formula(after, zero_shot) for name, formula in zip(FWT_VARIANTS, formulas, strict=True)}


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
