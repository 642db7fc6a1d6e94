"""Answer metrics."""

import pytest

from pamctl.evaluation.answers import exact, metric_named
from pamctl.refusal import UsageRefusal


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("red", ("red",), 1.0),
        (" Red\n", ("red ",), 1.0),
        ("two", ("2", "TWO"), 1.0),
        ("re d", ("red",), 0.0),
        ("", ("red",), 0.0),
        ("a red", ("red",), 0.0),
    ],
)
def test_exact_trims_and_lowers_both_sides(prediction: str, answers: tuple[str, ...], score: float) -> None:
    assert exact(prediction, answers) == score


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    assert metric_named("exact") is exact
    with pytest.raises(UsageRefusal) as refused:
        metric_named("bleu")
    assert "exact" in refused.value.way_on
