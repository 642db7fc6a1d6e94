"""Training curves: thinned, placed, and averaged over orders and seeds."""

from pathlib import PurePath
from typing import Any

import pytest

from pamctl.evaluation.curves import (
    FIRST,
    Curve,
    MeanCurve,
    Place,
    curves_of,
    mean_curves,
    place_in_run,
    thinned,
)


def test_points_are_means_over_steps_that_follow_one_another() -> None:
    steps, loss = thinned([1, 2, 3, 4, 5], [8.0, 6.0, 4.0, 2.0, 1.0], most=3)
    assert steps == (2, 4, 5)
    assert loss == (7.0, 3.0, 1.0)
    assert thinned([1, 2], [3.0, 5.0], most=3) == ((1, 2), (3.0, 5.0))


@pytest.mark.parametrize("count", [1, 59, 60, 61, 4000])
def test_there_are_never_too_many_and_the_last_step_stays(count: int) -> None:
    steps, loss = thinned(range(1, count + 1), [1.0] * count)
    assert len(steps) == len(loss) <= 60
    assert steps[-1] == count


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("order-1/seed-7/pam-p30/2-b/trained/metrics.jsonl", Place("pam-p30", "order-1", 7)),
        ("order-1/seed-7/first-0a1b2c3d/1-b/trained/metrics.jsonl", Place(FIRST, "order-1", 7)),
        ("alone/seed-0/independent/b/trained/metrics.jsonl", Place("independent", None, 0)),
    ],
)
def test_a_path_in_a_run_tells_the_place(path: str, place: Place) -> None:
    assert place_in_run(PurePath(path)) == place


def test_one_file_may_hold_several_trainings() -> None:
    begun: dict[str, Any] = {"event": "start", "method": "pam", "global_adapter": "g", "seed": 0}
    step: dict[str, Any] = {"event": "step", "step": 1, "loss": 2.0}
    events = [{**begun, "task": "a"}, step, {"event": "align"}, {**begun, "task": "b"}, step]
    assert [curve.task for curve in curves_of(events)] == ["a", "b"]


def test_the_mean_is_over_curves_of_the_commonest_length() -> None:
    def curve(seed: int, *loss: float) -> Curve:
        return Curve("pam", "o", seed, "a", tuple(range(1, len(loss) + 1)), loss)

    curves = [curve(0, 4.0, 2.0), curve(1, 2.0, 1.0), curve(2, 9.0, 9.0, 9.0)]
    assert mean_curves(curves) == [MeanCurve("pam", "a", (1, 2), (3.0, 1.5), 2)]
