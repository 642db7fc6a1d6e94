"""Metrics against hand computation, the identity of the metrics, and the paper's own tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pamctl.evaluation.metrics import (
    accuracy_when_merged,
    backward_transfer,
    final_accuracy,
    forgetting,
    forgetting_from_best,
    forward_transfers,
    identity_gap,
    metrics_of,
)

AFTER = np.array([[60.0, 10.0, 20.0], [50.0, 70.0, 30.0], [40.0, 65.0, 90.0]])
TRAINED = np.array([60.0, 80.0, 95.0])
ZERO_SHOT = np.array([5.0, 7.0, 11.0])


def test_three_tasks_by_hand() -> None:
    metrics = metrics_of(AFTER, TRAINED, ZERO_SHOT)
    assert metrics == {
        "ACC": 65.0,  # (40 + 65 + 90) / 3
        "BWT": -12.5,  # ((40 - 60) + (65 - 70)) / 2
        "FWT": 11.0,  # ((10 - 7) + (30 - 11)) / 2
        "A_t": pytest.approx(235 / 3),
        "A_m": pytest.approx(220 / 3),
    }
    assert forgetting(AFTER) == [10.0, 12.5]  # 60 - 50; ((60 - 40) + (70 - 65)) / 2


def test_each_variant_of_forward_transfer_by_hand() -> None:
    assert forward_transfers(AFTER, ZERO_SHOT) == {
        "lopez-paz": 11.0,  # ((10 - 7) + (30 - 11)) / 2
        "paper": 1.5,  # (10 - 7) / 2: without task 3, and still divided by T - 1
        "all-unseen": 12.5,  # (((10 - 7) + (20 - 11)) / 2 + (30 - 11)) / 2
    }


def test_variants_need_different_cells() -> None:
    def known(row: int, column: int) -> list[str]:
        after = AFTER.copy()
        after[row, column] = np.nan
        return [name for name, value in forward_transfers(after, ZERO_SHOT).items() if value is not None]

    assert known(0, 1) == []
    assert known(0, 2) == ["lopez-paz", "paper"]
    assert known(1, 2) == ["paper"]
    assert known(2, 0) == ["lopez-paz", "paper", "all-unseen"]


def test_two_tasks_are_too_few_for_the_papers_forward_transfer() -> None:
    after, zero_shot = np.array([[60.0, 10.0], [50.0, 70.0]]), np.array([5.0, 7.0])
    assert forward_transfers(after, zero_shot) == {"lopez-paz": 3.0, "paper": 0.0, "all-unseen": 3.0}
    one = forward_transfers(after[:1, :1], zero_shot[:1])
    assert one == {"lopez-paz": None, "paper": None, "all-unseen": None}


def test_forgetting_from_the_best_state_counts_what_was_won_in_between() -> None:
    after = np.array([[60.0, 0.0, 0.0], [75.0, 70.0, 0.0], [40.0, 65.0, 90.0]])
    assert forgetting(after) == [-15.0, 12.5]  # 60 - 75; ((60 - 40) + (70 - 65)) / 2
    assert forgetting_from_best(after) == [-15.0, 20.0]  # 60 - 75; ((75 - 40) + (70 - 65)) / 2
    after[0, 1] = np.nan  # before it was learned
    assert forgetting_from_best(after) == [-15.0, 20.0]
    after[1, 0] = np.nan
    assert forgetting_from_best(after) == [None, None]


def test_a_single_task_has_no_transfer() -> None:
    metrics = metrics_of(np.array([[50.0]]), np.array([50.0]), np.array([20.0]))
    assert metrics == {"ACC": 50.0, "BWT": None, "FWT": None, "A_t": 50.0, "A_m": 50.0}
    assert forgetting(np.array([[50.0]])) == []


def test_a_missing_cell_voids_only_what_needs_it() -> None:
    after = AFTER.copy()
    after[0, 1] = np.nan
    assert [name for name, value in metrics_of(after, TRAINED, ZERO_SHOT).items() if value is None] == ["FWT"]
    after[1, 0] = np.nan
    assert forgetting(after) == [None, 12.5]
    after[2, 0] = np.nan
    metrics = metrics_of(after, TRAINED, ZERO_SHOT)
    assert [name for name, value in metrics.items() if value is None] == ["ACC", "BWT", "FWT"]
    assert identity_gap(after) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 8).flatmap(lambda t: arrays(np.float64, (t, t), elements=st.floats(0, 100))))
def test_transfer_back_is_what_final_accuracy_lost(after: np.ndarray) -> None:
    gap = identity_gap(after)
    assert gap is not None
    assert gap < 1e-9
    assert forgetting(after)[-1] == pytest.approx(-backward_transfer(after), abs=1e-9)  # type: ignore[operator]


PAPER = {
    # Table 1, no merging, so A_m = A_t: ACC, BWT, A_t, tasks
    "Fine-tune": (43.36, -39.51, 76.29, 6),
    "LWF": (47.15, -33.66, 75.20, 6),
    "I-LoRA": (42.11, -40.95, 76.24, 6),
    "O-LoRA": (46.53, -32.08, 73.27, 6),
    "MoELoRA": (46.59, -36.40, 76.93, 6),
    # Table 2: ACC, BWT, A_m (its Average row contradicts itself by 0.13: 47.41, -22.40, 65.95)
    "PAM": (49.89, -19.45, 66.11, 6),
    "TIES": (47.78, -22.87, 66.85, 6),
    "TALL": (49.22, -12.85, 59.93, 6),
    "TALL+PAM": (51.97, -9.27, 59.70, 6),
    # the ablations of p and of re-initialisation, and Table 6 of s, whose column A_t is A_m
    "p=30": (47.74, -22.24, 66.28, 6),
    "p=50": (48.16, -21.37, 65.97, 6),
    "p=70": (48.32, -20.63, 65.51, 6),
    "reinit zero": (49.53, -20.14, 66.32, 6),
    "s=10": (48.25, -21.21, 65.93, 6),
    "s=300": (47.82, -21.78, 65.97, 6),
    # Table 3, no merging
    "Extended Fine-tune": (49.73, -22.19, 69.71, 10),
    "Extended LWF": (49.49, -20.81, 68.23, 10),
    "Video Fine-tune": (40.73, -16.66, 51.84, 3),
    "Video LWF": (41.55, -14.60, 51.30, 3),
}


@pytest.mark.parametrize(("acc", "bwt", "merged", "count"), PAPER.values(), ids=PAPER)
def test_the_papers_accuracy_follows_from_its_transfer(
    acc: float, bwt: float, merged: float, count: int
) -> None:
    after = np.full((count, count), merged)
    after[-1, :-1] += bwt
    assert accuracy_when_merged(after) == pytest.approx(merged)
    assert backward_transfer(after) == pytest.approx(bwt)
    assert final_accuracy(after) == pytest.approx(acc, abs=0.02)
