"""How a predicted answer is scored against the accepted ones."""

from collections.abc import Callable, Mapping, Sequence

from pamctl.refusal import UsageRefusal

Metric = Callable[[str, Sequence[str]], float]


def exact(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals an accepted answer once both are trimmed and lower-cased, else 0."""
    return float(_plain(prediction) in {_plain(answer) for answer in answers})


METRICS: Mapping[str, Metric] = {"exact": exact}


def metric_named(name: str) -> Metric:
    """The metric a task names; refuses a name that is not here."""
    if name not in METRICS:
        raise UsageRefusal(f"no metric is named {name!r}", f"use one of: {', '.join(METRICS)}")
    return METRICS[name]


def _plain(answer: str) -> str:
    return answer.strip().lower()
