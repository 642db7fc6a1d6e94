"""Times every answer metric on as many predictions as VQAv2 has training questions (--help: options)."""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator

from pamctl.evaluation.answers import METRICS

QUESTIONS = 443_757
DISTINCT = 200_000
YES_NO = 0.35
"""Share of questions on which all ten agree, and so share one of two answers."""

Case = tuple[str, tuple[str, ...]]


def cases(count: int, distinct: int) -> Iterator[Case]:
    """Predictions with ten answers, which are drawn as from a text: the n-th most frequent 1/n as often."""
    draw = random.Random(0)

    def word() -> str:
        return f"the answer-{int(distinct ** draw.random())}"

    for _ in range(count):
        if draw.random() < YES_NO:
            answers = (draw.choice(["yes", "no"]),) * 10
        else:
            answers = (word(),) * 4 + (word(),) * 3 + (word(), word(), word())
        yield draw.choice(answers), answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument(
        "--distinct", type=int, default=DISTINCT, help="how many answers there are to draw from"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    drawn = list(cases(options.questions, options.distinct))
    seconds = {}
    for name, metric in METRICS.items():
        start = time.perf_counter()
        for prediction, answers in drawn:
            metric.score(prediction, answers)
        seconds[name] = round(time.perf_counter() - start, 2)
    if options.json:
        print(json.dumps({"questions": len(drawn), "load": os.getloadavg()[0], "seconds": seconds}))
        return
    print(f"{len(drawn)} predictions with ten answers each, load {os.getloadavg()[0]:.1f}")
    for name, taken in seconds.items():
        print(f"{name:<16}{taken:>8.2f} s")


if __name__ == "__main__":
    main()
