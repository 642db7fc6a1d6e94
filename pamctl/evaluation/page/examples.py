"""The examples of the page: picture, question, accepted answers, what each state answers."""

from collections.abc import Iterator, Sequence

from pamctl.evaluation.page.answered import (
    RIGHT,
    Answered,
    Known,
    answered_sequences,
    telling_examples,
)
from pamctl.evaluation.page.choices import Lists
from pamctl.evaluation.page.elements import Content, Html, element, identifier
from pamctl.evaluation.page.pictures import Pictures, data_uri
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.summary import Comparison
from pamctl.evaluation.tables import NOT_AVAILABLE

EACH, ALL = 4, 30
"""Most examples of one task, and about how many of all tasks together."""
LONGEST = 400
"""Letters of a question or an answer that are shown."""
NO_PICTURE = "The pictures of this task are not at hand: tell pamctl report where the task is with --task."


def examples_section(comparison: Comparison, known: Known, pictures: Pictures, id: str) -> Iterator[Section]:
    """Some examples of every task of a comparison; nothing where no prediction is known."""
    found = answered_sequences(comparison, known)
    if found is None:
        return
    (order, seed), sequences = found
    lists = Lists(f"{id}-choices", {"Method": [sequence.matrix.system for sequence in sequences]})
    most = max(1, min(EACH, ALL // len(comparison.tasks)))
    tasks = sequences[0].matrix.tasks
    groups = [
        Section(
            identifier(id, place),
            task,
            _task(task, telling_examples(task, sequences, most), sequences, lists, pictures),
        )
        for place, task in enumerate(tasks, start=1)
    ]
    where = order if seed is None else f"{order}, seed {seed}"
    lead = (
        f"Answers of the base and of the state after each task, in {where}: {' → '.join(tasks)}. Examples "
        "come first that most methods answer when the task is learned and no longer answer in the end."
    )
    shown = lists.around([group.shown(4) for group in groups])
    yield Section(id, "Examples", [element("p", lead), shown])


def _task(
    task: str, ids: Sequence[str], sequences: Sequence[Answered], lists: Lists, pictures: Pictures
) -> Content:
    images = [pictures(task, example) for example in ids]
    cards = [
        _card(task, example, None if image is None else data_uri(image), sequences, lists)
        for example, image in zip(ids, images, strict=True)
    ]
    hint = element("p", NO_PICTURE, class_="hint") if ids and not any(images) else None
    none = None if ids else element("p", "No predictions of this task are known.", class_="hint")
    return hint, none, element("div", cards, class_="cards")


def _card(task: str, id: str, image: str | None, sequences: Sequence[Answered], lists: Lists) -> Html:
    told = next(each for sequence in sequences for each in sequence.answers(task, id) if each is not None)
    picture = image and element("img", src=image, alt=f"Picture of example {id}")
    answers = ", ".join(dict.fromkeys(told.answers))
    facts = element(
        "dl",
        element("dt", "Question"),
        element("dd", shortened(told.prefix), class_="question"),
        element("dt", "Accepted"),
        element("dd", shortened(answers)),
    )
    panels = [lists.panel(_stages(task, id, sequence), sequence.matrix.system) for sequence in sequences]
    return element("article", picture, facts, panels, class_="card", aria_label=f"Example {id} of {task}")


def _stages(task: str, id: str, sequence: Answered) -> Html:
    """A row a state: the base, then after each task."""
    head = [element("th", name, scope="col") for name in ("state", "answer", "score")]
    caption = element("caption", f"Answers of {sequence.matrix.system}")
    body = element("tbody", list(_rows(task, id, sequence)))
    return element("table", caption, element("thead", element("tr", head)), body, class_="stages")


def _rows(task: str, id: str, sequence: Answered) -> Iterator[Html]:
    """The states, without those before the task was learned that were not evaluated on it."""
    before, *after = sequence.answers(task, id)
    yield _stage("zero-shot", before, learned=False)
    tasks = sequence.matrix.tasks
    for place, answer in enumerate(after):
        if tasks[place] == task:
            yield _stage(f"learned {task}", answer, learned=True)
        elif answer is not None or place > tasks.index(task):
            yield _stage(f"after {tasks[place]}", answer, learned=False)


def _stage(name: str, answer: Prediction | None, *, learned: bool) -> Html:
    shown: Content = element("td", NOT_AVAILABLE, colspan=2)
    if answer is not None:
        right = answer.score >= RIGHT
        score = f"{'✓' if right else '✗'} {answer.score:.0f}"
        shown = [
            element("td", shortened(answer.prediction) or "(nothing)"),
            element("td", score, class_="right" if right else "wrong"),
        ]
    return element("tr", element("th", name, scope="row"), shown, class_="learned" if learned else None)


def shortened(text: str) -> str:
    """Text of a length that a card can hold."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
