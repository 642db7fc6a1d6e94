"""Which examples a page shows, and what it tells of each: picture, question, answers state by state."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pamctl.evaluation.page import page_of
from pamctl.evaluation.page.answered import Answered, answered_sequences, known_predictions, telling_examples
from pamctl.evaluation.page.pictures import data_uri
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.report import Report
from tests.page_cases import no_picture, picture, report_of_grid


def answer(task: str, number: int, adapter: str | None, text: str, gold: str = "cat") -> Prediction:
    return Prediction(
        task=task,
        id=f"{task}-{number}",
        prefix="what is it?",
        prediction=text,
        answers=(gold,),
        score=100.0 if text == gold else 0.0,
        stage="base" if adapter is None else "trained",
        adapter=adapter,
    )


@pytest.fixture
def report() -> Report:
    return report_of_grid(methods=("finetune",), tasks=("a", "b"), orders=1, seeds=1)


def with_answers(report: Report, *predictions: Prediction) -> Report:
    return replace(report, predictions=predictions)


LEARNED, LAST = "finetune-0-0-0", "finetune-0-0-1"


def sequence_of(report: Report) -> Answered:
    [comparison] = report.comparisons
    found = answered_sequences(comparison, known_predictions(report.predictions))
    assert found is not None
    return found[1][0]


def test_what_was_right_when_learned_and_wrong_later_comes_first(report: Report) -> None:
    told = with_answers(
        report,
        *(answer("a", number, LEARNED, text) for number, text in enumerate(("dog", "cat", "cat", "dog"))),
        *(answer("a", number, LAST, text) for number, text in enumerate(("dog", "cat", "dog", "cat"))),
    )
    sequence = sequence_of(told)
    assert [sequence.forgets("a", f"a-{number}") for number in range(4)] == [False, False, True, False]
    assert telling_examples("a", [sequence], 2) == ["a-2", "a-0"]


def test_answers_stand_in_the_order_of_the_states(report: Report) -> None:
    told = with_answers(
        report,
        answer("a", 0, LAST, "dog"),
        answer("a", 0, None, "a bird"),
        answer("a", 0, LEARNED, "cat"),
        answer("b", 0, LAST, "tree"),
    )
    sequence = sequence_of(told)
    texts = [
        [each and each.prediction for each in sequence.answers(task, f"{task}-0")] for task in ("a", "b")
    ]
    assert texts == [["a bird", "cat", "dog"], [None, None, "tree"]]
    page = page_of(told, no_picture)
    rows = re.findall(r"<tr(?: class=learned)?><th scope=row>([^<]*)<td>([^<]*)<td class=(\w+)>(. \d+)", page)
    assert rows[:3] == [
        ("zero-shot", "a bird", "wrong", "✗ 0"),
        ("learned a", "cat", "right", "✓ 100"),
        ("after b", "dog", "wrong", "✗ 0"),
    ]


def test_states_that_were_not_evaluated_are_told_from_the_task_on(report: Report) -> None:
    told = with_answers(report, answer("a", 0, LEARNED, "cat"), answer("b", 0, LAST, "tree"))
    states = re.findall(
        r"<th scope=row>(zero-shot|learned \w|after \w)<td( colspan=2>n/a)?", page_of(told, no_picture)
    )
    assert states[-5:] == [
        ("zero-shot", " colspan=2>n/a"),
        ("learned a", ""),
        ("after b", " colspan=2>n/a"),
        ("zero-shot", " colspan=2>n/a"),
        ("learned b", ""),
    ]


def test_predictions_without_a_place_are_in_no_sequence(report: Report) -> None:
    loose = replace(answer("a", 0, LEARNED, "cat"), adapter=None)
    assert "Examples" not in page_of(with_answers(report, loose), no_picture)


def test_the_order_and_seed_that_most_methods_know_is_shown() -> None:
    whole = report_of_grid(methods=("finetune", "pam"), tasks=("a", "b"), orders=2, seeds=1)
    told = (
        answer("a", 0, "finetune-0-0-0", "cat"),
        answer("b", 0, "finetune-1-0-0", "cat"),
        answer("b", 0, "pam-1-0-0", "cat"),
    )
    [comparison] = whole.comparisons
    found = answered_sequences(comparison, known_predictions(told))
    assert found is not None
    draw, sequences = found
    assert draw == ("order-2", 0)
    assert [sequence.matrix.system for sequence in sequences] == ["finetune", "pam"]


def test_pictures_are_asked_of_the_examples_shown_only() -> None:
    asked: list[tuple[str, str]] = []

    def counting(task: str, id: str) -> Image.Image | None:
        asked.append((task, id))
        return picture(task, id)

    page = page_of(report_of_grid(), counting)
    assert len(asked) == len(set(asked)) == 3 * 4
    assert page.count("<img ") == 3 * 4
    assert page.count("alt=") == 3 * 4


def test_without_pictures_the_page_says_how_to_give_them() -> None:
    page = page_of(report_of_grid(), no_picture)
    assert "<img" not in page
    assert page.count("tell pamctl report where the task is with --task") == 3


def test_pictures_are_small() -> None:
    large = data_uri(Image.effect_noise((3000, 2000), 80))
    assert large is not None
    assert large.startswith("data:image/jpeg;base64,")
    assert len(large) < 40_000
    crisp = data_uri(Image.new("RGBA", (32, 32), (200, 0, 0, 255)))
    assert crisp is not None
    assert crisp.startswith("data:image/png;base64,")


def test_a_broken_picture_is_none(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.effect_noise((200, 200), 80).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with Image.open(file) as broken:
        assert data_uri(broken) is None


def test_long_answers_are_cut(report: Report) -> None:
    page = page_of(with_answers(report, answer("a", 0, LEARNED, "word " * 500)), no_picture)
    assert "word…" in page
    assert page.count("word ") < 100


def test_a_matrix_that_tells_no_adapters_has_no_examples(report: Report) -> None:
    [comparison] = report.comparisons
    unknown = tuple(replace(matrix, adapters=()) for matrix in comparison.matrices)
    known = known_predictions(report.predictions)
    assert answered_sequences(replace(comparison, matrices=unknown), known) is None
