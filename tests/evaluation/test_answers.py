"""Answer metrics by name, and exact match."""

import pytest

from pamctl.evaluation.answers import METRICS, metric_named
from pamctl.refusal import UsageRefusal


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("red", ("red",), 1.0),
        (" Red\n", ("red ",), 1.0),
        ("two", ("2", "TWO"), 1.0),
        ("re d", ("red",), 0.0),
        ("", ("red",), 0.0),
        ("", ("",), 1.0),
        ("a red", ("red",), 0.0),
        ("red.", ("red",), 0.0),
        ("ÉCOLE", ("école",), 1.0),
        ("e\u0301cole", ("\u00e9cole",), 0.0),  # composed and decomposed letters are two spellings
        ("red", (), 0.0),
    ],
)
def test_exact_trims_and_lowers_both_sides(prediction: str, answers: tuple[str, ...], score: float) -> None:
    assert metric_named("exact").score(prediction, answers) == score


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("Red", ("Red",), 1.0),
        ("Red", ("red",), 0.0),
        (" B\n", ("B",), 1.0),
        ("B", ("A", "B "), 1.0),
        ("B", (), 0.0),
    ],
)
def test_exact_case_trims_both_sides_and_keeps_case(
    prediction: str, answers: tuple[str, ...], score: float
) -> None:
    assert metric_named("exact-case").score(prediction, answers) == score


def test_metrics_are_known_by_their_own_names() -> None:
    assert (
        list(METRICS)
        == (
            "exact exact-case vqa vqa-simple vqa-single scienceqa "
            "coin-scienceqa coin-textvqa coin-gqa coin-vqa coin-ocrvqa"
        ).split()
    )
    assert all(metric_named(name).name == name for name in METRICS)


def test_a_formula_is_one_line() -> None:
    assert all(metric.formula and "\n" not in metric.formula for metric in METRICS.values())


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageRefusal) as refused:
        metric_named("bleu")
    assert "'bleu'" in refused.value.what
    assert all(name in refused.value.way_on for name in METRICS)


def test_only_letters_can_be_unread() -> None:
    assert [name for name, metric in METRICS.items() if not metric.reads("")] == [
        "scienceqa",
        "coin-scienceqa",
    ]
