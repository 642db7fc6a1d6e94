"""How a predicted answer is scored against the accepted ones: a metric by name."""

from collections.abc import Mapping

from pamctl.evaluation.answers.coin import (
    COIN_GQA,
    COIN_OCR_VQA,
    COIN_SCIENCE_QA,
    COIN_TEXT_VQA,
    COIN_VQA,
)
from pamctl.evaluation.answers.exact import EXACT, EXACT_CASE
from pamctl.evaluation.answers.metric import Metric
from pamctl.evaluation.answers.science_qa import SCIENCE_QA
from pamctl.evaluation.answers.soft_accuracy import VQA, VQA_SIMPLE, VQA_SINGLE
from pamctl.refusal import UsageRefusal

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        EXACT,
        EXACT_CASE,
        VQA,
        VQA_SIMPLE,
        VQA_SINGLE,
        SCIENCE_QA,
        COIN_SCIENCE_QA,
        COIN_TEXT_VQA,
        COIN_GQA,
        COIN_VQA,
        COIN_OCR_VQA,
    )
}


def metric_named(name: str) -> Metric:
    """The metric a task names; refuses a name that is not here."""
    if name not in METRICS:
        raise UsageRefusal(f"no metric is named {name!r}", f"use one of: {', '.join(METRICS)}")
    return METRICS[name]


__all__ = ["METRICS", "Metric", "metric_named"]
