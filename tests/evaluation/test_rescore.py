"""Predictions that are kept are scored again: as before where nothing changed, else as the task says now."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pamctl.evaluation.predictions import Prediction, predictions_file, read_predictions
from pamctl.evaluation.rescore import rescore
from pamctl.evaluation.results import Result, TypeScore, append_results, examples_fingerprint, read_results
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Example, Task

STATE = {"stage": "merged", "tasks": ("red",), "adapter": "a" * 64, "parents": ("1" * 64,), "base": "b" * 64}
LABELS = {"method": "pam", "order": "one", "run": "p=20", "seed": 3}


def no_images() -> Sequence[Any]:
    raise AssertionError("the score needs no image")


def task(name: str = "red", metric: str = "exact", count: int = 4) -> Task:
    """Whose answers are A0, A1, ...; even ones are of type x, odd ones of type y."""
    examples = [
        Example(f"{name}-{n}", f"question {n}", (f"A{n}",), no_images, "xy"[n % 2]) for n in range(count)
    ]
    return Task(name, {"test": examples}, metric=metric)


def answers(of: Task, right: Sequence[int], **place: Any) -> list[Prediction]:
    """The predictions of some state, in which the numbered ones are right but for their case."""
    return [
        Prediction(
            of.name,
            example.id,
            example.prefix,
            f"a{n}" if n in right else "none",
            example.answers,
            100.0 * (n in right),
            "test",
            "exact",
            example.type,
            **place,
        )
        for n, example in enumerate(of.split("test"))
    ]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Sequence[Prediction]], Path]:
    """Writes some predictions to a file."""

    def write(predictions: Sequence[Prediction]) -> Path:
        with predictions_file(tmp_path / "p.jsonl", force=True) as opened:
            opened.add(predictions)
        return tmp_path / "p.jsonl"

    return write


Write = Callable[[Sequence[Prediction]], Path]


def test_the_result_is_that_of_the_evaluation_and_stands_in_its_place(file: Write, tmp_path: Path) -> None:
    red = task()
    kept = answers(red, [0, 1, 2], **STATE, **LABELS)
    results, again = tmp_path / "r.jsonl", tmp_path / "again.jsonl"
    [found] = rescore(file(kept[::-1]), [red], results=results, predictions=again)
    types = {"x": TypeScore(100.0, 2), "y": TypeScore(50.0, 2)}
    examples = examples_fingerprint(red.split("test"))
    told = {"metric": "exact", "score": 75.0, "n": 4, "examples": examples, "types": types, "unread": 0}
    assert found == Result(task="red", **STATE, **LABELS, **told)  # type: ignore[arg-type]
    assert read_results([results])[0] == [found]
    assert read_predictions(again)[0] == kept
    # Again it is known, unless --force appends it all the same.
    rescore(file(kept), [red], results=results)
    assert read_results([results])[0] == [found]
    rescore(file(kept), [red], results=results, force=True)
    assert read_results([results])[0] == [found] * 2


def test_the_metric_and_the_answers_are_those_of_the_task_now(file: Write, tmp_path: Path) -> None:
    kept, results = file(answers(task(), [0, 1, 2], **STATE)), tmp_path / "r.jsonl"
    rescore(kept, [task()], results=results)
    [strict] = rescore(kept, [task(metric="exact-case")], results=results)
    assert (strict.metric, strict.score) == ("exact-case", 0.0)
    mended = [replace(example, answers=("none",)) for example in task().split("test")]
    [other] = rescore(kept, [replace(task(), splits={"test": mended})], results=results)
    assert (other.metric, other.score) == ("exact", 25.0)
    assert len(read_results([results])[0]) == 3


def test_a_score_that_is_not_the_last_one_of_its_cell_is_appended_again(file: Write, tmp_path: Path) -> None:
    results, fits = tmp_path / "r.jsonl", answers(task(), [0, 1, 2], **STATE)
    for kept in (fits, fits, answers(task(), [0], **STATE), fits, fits):
        rescore(file(kept), [task()], results=results)
    assert [result.score for result in read_results([results])[0]] == [75.0, 25.0, 75.0]


def test_answers_that_cannot_be_read_are_counted(file: Write) -> None:
    kept = [replace(one, prediction="no letter") for one in answers(task(), [], **STATE)]
    [found] = rescore(
        file([*kept[:3], replace(kept[3], prediction="The answer is A.")]), [task(metric="scienceqa")]
    )
    assert found.unread == 3


def test_each_state_and_each_task_of_a_file_has_its_result(file: Write) -> None:
    red, blue, warned = task(), task("blue", count=2), list[str]()
    kept = [
        *answers(blue, [0], **STATE),
        *answers(red, [0], **STATE),
        *answers(red, [], stage="base", base="b" * 64),
        *answers(task("green"), [0], **STATE),
    ]
    found = rescore(file(kept), [red, blue], warn=warned.append)
    assert [(one.task, one.stage, one.score, one.n) for one in found] == [
        ("red", "merged", 25.0, 4),
        ("red", "base", 0.0, 4),
        ("blue", "merged", 50.0, 2),
    ]
    assert warned == [f"{file(kept)} has answers to green too, which are left out"]


def test_only_the_first_examples(file: Write) -> None:
    kept = file(answers(task(), [0], **STATE)[:2])
    [found] = rescore(kept, [task()], limit=2)
    assert (found.n, found.score) == (2, 50.0)
    assert found.examples == examples_fingerprint(task().split("test")[:2])


def test_labels_that_are_given_count(file: Write) -> None:
    kept = file(answers(task(), [0], **STATE, **LABELS))
    [found] = rescore(kept, [task()], stage="trained", order="two", run="again")
    assert (found.stage, found.order, found.run, found.seed) == ("trained", "two", "again", 3)


def test_predictions_that_do_not_tell_their_place_count_as_trained(file: Write) -> None:
    warned: list[str] = []
    old = [replace(one, split=None, metric=None, type=None) for one in answers(task(), [0])]
    [found] = rescore(file(old), [task()], warn=warned.append)
    assert (found.stage, found.tasks, found.score) == ("trained", (), 25.0)
    assert warned == [f"{file(old)} does not tell whose answers to red these are: they count as trained"]


def test_another_prompt_is_told(file: Write) -> None:
    warned: list[str] = []
    kept = answers(task(), [0], **STATE)
    rescore(file([replace(kept[0], prefix="another"), *kept[1:]]), [task()], warn=warned.append)
    [told] = warned
    assert told.endswith("by adapter aaaaaaaaaaaa: 1 id (red-0) were answered to another prompt than now")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda kept: kept[:1], "red by adapter aaaaaaaaaaaa: 3 ids (red-1, red-2, red-3): not answered"),
        (lambda kept: [*kept, kept[2]], "1 id (red-2): answered more than once"),
        (
            lambda kept: [*kept, *(replace(kept[0], id=f"x{n}") for n in range(5))],
            "5 ids (x0, x1, x2, ...): no examples of the task",
        ),
        (lambda kept: [replace(one, split="val") for one in kept], "split 'val' of red, not to 'test'"),
        (lambda kept: [replace(one, task="blue") for one in kept], "holds no answers to red"),
    ],
)
def test_answers_that_do_not_fit_the_task_are_refused(
    file: Write, tmp_path: Path, change: Callable[[list[Prediction]], list[Prediction]], fault: str
) -> None:
    kept = file(change(answers(task(), [0], **STATE)))
    with pytest.raises(Refusal) as refused:
        rescore(kept, [task()], results=tmp_path / "r.jsonl", predictions=tmp_path / "again.jsonl")
    assert fault in refused.value.what
    assert [one.name for one in tmp_path.iterdir()] == ["p.jsonl"]


def test_files_in_the_way_are_refused_first(file: Write, tmp_path: Path) -> None:
    kept = file(answers(task(), [0], **STATE))
    with pytest.raises(Refusal, match="already exists"):
        rescore(kept, [task()], predictions=kept)
    with pytest.raises(UsageRefusal, match="is not a file"):
        rescore(kept, [task()], results=tmp_path)
    [better] = rescore(kept, [task(metric="exact-case")], predictions=kept, force=True)
    assert read_predictions(kept)[0][0].score == better.score == 0.0


@pytest.mark.parametrize("predictions", ["q.jsonl", None])
def test_one_file_for_results_and_predictions_is_refused(
    file: Write, tmp_path: Path, predictions: str | None
) -> None:
    kept = file(answers(task(), [0], **STATE))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / (predictions or kept.name))
    before = kept.read_bytes()
    with pytest.raises(UsageRefusal, match="is named for results and for predictions"):
        rescore(
            kept,
            [task()],
            results=tmp_path / "link.jsonl",
            predictions=tmp_path / predictions if predictions else None,
        )
    assert kept.read_bytes() == before


def test_results_are_not_appended_to_predictions(file: Write, tmp_path: Path) -> None:
    kept = file(answers(task(), [0], **STATE))
    other = tmp_path / "other.jsonl"
    other.write_bytes(before := kept.read_bytes())
    with pytest.raises(UsageRefusal, match=r"other\.jsonl holds predictions, not results"):
        rescore(kept, [task()], results=other)
    assert other.read_bytes() == before


def test_a_torn_line_is_told(file: Write, tmp_path: Path) -> None:
    kept, results, warned = file(answers(task(), [0], **STATE)), tmp_path / "r.jsonl", list[str]()
    append_results(results, rescore(kept, [task()]))
    for each in (kept, results):
        each.write_text(each.read_text() + '{"task": "re')
    [found] = rescore(kept, [task()], results=results, warn=warned.append)
    assert found.score == 25.0
    assert warned == [
        f"{each} line {number} was left torn by a stopped writer and is skipped"
        for each, number in ((results, 2), (kept, 5))
    ]
