"""Which column of a table is which field of an example, as `[columns]` in a TOML tells.

    [columns]
    question = "question"       # or prefix: the template's {question}; a list makes as many examples of a row
    answers = "answers.answer"  # or answer, suffix; a dot goes on into an object, or each object of a list
    image = "image"             # encoded pictures, or names of files in `images`
    id = "question_id"          # default: the number of the row
    type = "answer_type"        # by which scores are broken down
    options = "choices"         # the template's {options}; an answer that is a number is the place of one
    hint = "hint"               # any other name is a field of the template

Question, answers, image and id go by these names where the TOML says nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pamctl.refusal import UsageRefusal
from pamctl.tasks.releases.record import Record, kind

QUESTION = ("question", "prefix")
ANSWER = ("answers", "answer", "suffix")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they are; None where the table needs none.

    Attributes:
        fields: of the template, beside question and options.
    """

    question: str
    answer: str
    image: str
    id: str | None
    type: str | None
    options: str | None
    fields: Mapping[str, str]

    @property
    def texts(self) -> list[str]:
        """The columns of a table that are read with every row: all but that of the pictures."""
        named = (self.question, self.answer, self.id, self.type, self.options, *self.fields.values())
        return list(dict.fromkeys(_column(name) for name in named if name is not None))


def columns_of(said: Mapping[str, str], known: Sequence[str], place: str) -> Columns:
    """The columns that a TOML names, and those that go by their usual name where it does not.

    Args:
        known: the columns of the table.

    Raises:
        UsageRefusal: one is not there, or is said twice.
    """

    def found(roles: Sequence[str], *, usual: Sequence[str] = ()) -> str | None:
        names = [said[role] for role in roles if role in said]
        if len(names) > 1:
            twice = " and ".join(role for role in roles if role in said)
            raise UsageRefusal(f"{place}: [columns] has {twice}", "keep one of them")
        return names[0] if names else next((name for name in usual if name in known), None)

    question, answer = found(QUESTION, usual=QUESTION), found(ANSWER, usual=ANSWER)
    of = ("id", "type", "options", "image")
    roles = (*QUESTION, *ANSWER, *of)
    columns = Columns(
        _needed(question, "question", known, place),
        _needed(answer, "answer", known, place),
        said.get("image", "image"),
        found(["id"], usual=["id", "question_id"]),
        said.get("type"),
        said.get("options"),
        {name: column for name, column in said.items() if name not in roles},
    )
    for name in (*columns.texts, columns.image):
        if name not in known:
            raise UsageRefusal(
                f"{place} has no column {name}", f"name in [columns] which is which of: {', '.join(known)}"
            )
    return columns


def _needed(column: str | None, role: str, known: Sequence[str], place: str) -> str:
    if column is None:
        raise UsageRefusal(
            f"{place} has no column {role}", f"name in [columns] which is its {role}: {', '.join(known)}"
        )
    return column


def asked(record: Record, columns: Columns) -> Iterator[tuple[dict[str, str], list[str], str]]:
    """What a row asks: the fields of the template, the answers, and the letter of the option that is right.

    A row whose question is a list has one example of each, with the answer at the same place.
    """
    options = None if columns.options is None else _texts(record, columns.options)
    fields = {name: _text(record, column) for name, column in columns.fields.items()}
    if options is not None:
        fields["options"] = ", ".join(f"({LETTERS[n % 26]}) {option}" for n, option in enumerate(options))
    questions, answers = _value(record, columns.question), _value(record, columns.answer)
    if not isinstance(questions, list):
        accepted, letter = _answers(record, columns.answer, answers, options)
        yield {"question": _text(record, columns.question), **fields}, accepted, letter
        return
    if not isinstance(answers, list) or len(answers) != len(questions):
        raise record.fault(f"has {len(questions)} of `{columns.question}` and not as many `{columns.answer}`")
    for question, answer in zip(questions, answers, strict=True):
        if not isinstance(question, str):
            raise record.fault(f"has {kind(question)} in `{columns.question}`, not a text")
        accepted, letter = _answers(record, columns.answer, answer, options)
        yield {"question": question, **fields}, accepted, letter


def _answers(record: Record, column: str, value: Any, options: Sequence[str] | None) -> tuple[list[str], str]:
    """The accepted answers, and the letter of the option that a number tells."""
    if isinstance(value, int) and not isinstance(value, bool):
        if options is None:
            return [str(value)], ""
        if not 0 <= value < len(options):
            raise record.fault(f"has {value} as `{column}`, and {len(options)} options")
        return [options[value]], LETTERS[value % 26]
    answers = value if isinstance(value, list) else [value]
    if not all(isinstance(answer, str) for answer in answers):
        raise record.fault(f"has {kind(value)} as `{column}`, not a text, a number or a list of texts")
    return answers, ""


def _text(record: Record, column: str) -> str:
    value = _value(record, column)
    if not isinstance(value, str):
        raise record.fault(f"has {kind(value)} as `{column}`, not a text")
    return value


def _texts(record: Record, column: str) -> list[str]:
    value = _value(record, column)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise record.fault(f"has {kind(value)} as `{column}`, not a list of texts")
    return value


def _value(record: Record, column: str) -> Any:
    """What a column holds, or what a dot in its name leads to."""
    value = record.fields.get(_column(column))
    for name in column.split(".")[1:]:
        if isinstance(value, list):
            value = [each.get(name) if isinstance(each, dict) else None for each in value]
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _column(name: str) -> str:
    return name.partition(".")[0]
