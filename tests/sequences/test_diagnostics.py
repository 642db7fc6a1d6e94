"""The diagnostics of a stage against numbers by hand."""

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors
from pamctl.sequences.diagnostics import diagnostics

MODULE = "language_model.layers.0.self_attn.q_proj"


def adapter(a: list[list[float]], b: list[list[float]]) -> Adapter:
    factors = LoraFactors(np.array(a, np.float32), np.array(b, np.float32))
    return Adapter({MODULE: factors}, base_model="base")


BEFORE = adapter([[4.0, -3.0, 0.0, 1.0]], [[2.0], [0.0]])
TRAINED = adapter([[4.0, 3.0, 5.0, -1.0]], [[-2.0], [1.0]])
STATE = adapter([[4.0, 0.0, 0.0, 0.0]], [[0.0], [0.5]])


def test_by_hand() -> None:
    """Of |W_G| = 4 3 0 1 | 2 0 the top half is 4, 3 and 2; -3 and 2 changed sign, and so did 1."""
    found = diagnostics(BEFORE, TRAINED, STATE, 50, "global", merged=True)
    important, everything = (found["conflicts"][name]["overall"] for name in ("important", "all"))
    assert (important["weights"], important["important"], important["conflicts"]) == (6, 3, 2)
    assert (everything["important"], everything["conflicts"], everything["differ"]) == (4, 3, 3)
    assert found["conflicts"]["important"]["modules"][MODULE]["b"]["conflicts"] == 1
    assert found["protected_percent"] == {"a": 50.0, "b": 50.0}
    assert found["zeros_percent"] == {"before": {"a": 25.0, "b": 50.0}, "after": {"a": 75.0, "b": 50.0}}
    # a moved by (0, 6, 5, -2) from (4, -3, 0, 1); b by (-4, 1) from (2, 0)
    assert found["distance"]["a"] == pytest.approx((65 / 26) ** 0.5, rel=1e-5)
    assert found["distance"]["b"] == pytest.approx(17**0.5 / 2, rel=1e-5)
    a0, b0, a1, b1 = (np.array(x) for x in ([4, -3, 0, 1.0], [2, 0.0], [4, 3, 5, -1.0], [-2, 1.0]))
    mean = (np.outer(b0, a0) + np.outer(b1, a1)) / 2
    wrong = np.linalg.norm(mean - np.outer((b0 + b1) / 2, (a0 + a1) / 2)) / np.linalg.norm(mean)
    assert found["cross_term_error_percent"] == pytest.approx(100 * wrong, rel=1e-4)


def test_without_a_merge_there_is_no_cross_term() -> None:
    found = diagnostics(BEFORE, TRAINED, TRAINED, 50, "global", merged=False)
    assert found["cross_term_error_percent"] is None
    assert found["not_compared"] is None


def test_adapters_of_two_ranks_are_not_compared() -> None:
    stacked = adapter([[4.0, -3.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]])
    found = diagnostics(BEFORE, stacked, stacked, 50, "global", merged=False)
    assert "cannot be compared" in found["not_compared"]
    assert found["conflicts"] is None
    assert found["zeros_percent"]["after"] == {"a": 25.0, "b": 75.0}
