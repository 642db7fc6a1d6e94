"""Scores by question type and unread answers after the last task, over orders and seeds."""

from pamctl.evaluation.by_type import scores_by_type, unread_answers
from pamctl.evaluation.figures import Drawn
from pamctl.evaluation.markdown import markdown_of
from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.metrics_json import metrics_json
from pamctl.evaluation.report import Report
from pamctl.evaluation.results import Result, TypeScore
from pamctl.evaluation.summary import Comparison, Spread, comparisons_of


def sequence(seed: int, presence: float, counting: float, unread: int | None) -> list[Result]:
    """Two tasks; the first one has types, whose scores before the second one are of no interest."""
    types = {"presence": TypeScore(presence, 3), "counting": TypeScore(counting, 1)}
    first = Result(
        "a", "trained", ("a",), "exact", 99.0, 4, method="pam", seed=seed, types={"x": TypeScore(9, 4)}
    )
    mean = (3 * presence + counting) / 4
    return [
        first,
        Result("a", "trained", ("a", "b"), "exact", mean, 4, method="pam", seed=seed, types=types),
        Result("b", "trained", ("a", "b"), "exact", 50.0, 4, method="pam", seed=seed, unread=unread),
    ]


def comparison(*results: Result) -> Comparison:
    (one,) = comparisons_of(matrices_of(results)[0])
    return one


ONE = comparison(*sequence(0, 80.0, 20.0, 1), *sequence(1, 60.0, 40.0, 2))


def test_types_are_those_of_the_last_state_and_count_the_same_in_their_mean() -> None:
    assert scores_by_type(ONE) == {
        "a": {
            "pam": {
                "counting": Spread(30.0, 10.0, 2),
                "presence": Spread(70.0, 10.0, 2),
                "mean of types": Spread(50.0, 0.0, 2),
            }
        }
    }


def test_unread_answers_are_a_share_of_the_examples() -> None:
    assert unread_answers(ONE) == {"b": {"pam": Spread(37.5, 12.5, 2)}}
    assert unread_answers(comparison(*sequence(0, 80.0, 20.0, None))) == {}


def test_tasks_apart_tell_theirs_too() -> None:
    types = {"x": TypeScore(10.0, 4)}
    apart = [
        Result(task, "trained", (task,), "exact", 10.0, 4, method="independent", types=types) for task in "ab"
    ]
    found = scores_by_type(comparison(*apart))
    assert {task: own["independent"]["x"].mean for task, own in found.items()} == {"a": 10.0, "b": 10.0}


def test_a_report_shows_them() -> None:
    report = Report((), (ONE,), ())
    text = "\n".join(markdown_of(report, Drawn(((),), ())))
    assert "### a by type of question, after the last task" in text
    assert "| pam | 30.00 ± 10.00 | 70.00 ± 10.00 | 50.00 ± 0.00 |" in text
    assert "### Predictions that no answer could be read from" in text
    assert "| pam | 37.50 ± 12.50 |" in text
    (told,) = metrics_json(report)["comparisons"]
    assert told["types"]["a"]["pam"]["mean of types"] == {"mean": 50.0, "std": 0.0, "n": 2}
    assert told["unread_percent"] == {"b": {"pam": {"mean": 37.5, "std": 12.5, "n": 2}}}
    none = comparison(*sequence(0, 80.0, 20.0, 0))
    text = "\n".join(markdown_of(Report((), (none,), ()), Drawn(((),), ())))
    assert "no answer could be read" not in text
