"""Questions that a release keeps apart from their answers: each has one record in the file of answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pamctl.refusal import Refusal
from pamctl.tasks.releases.record import WAY_ON, Record, read_records

Told = TypeVar("Told")
NAMED_AT_MOST = 3


class Asked(Generic[Told]):
    """The questions of a file by their `question_id`, none of which is lost on the way to its answer.

    Args:
        path, member: of the file, see `read_records`.
        told: what is kept of a question.
    """

    def __init__(self, path: Path, member: str | None, told: Callable[[Record], Told]) -> None:
        self._path, self._member, self._told = path, member, told
        self._found: dict[str, Told | None] = {}

    def read(self) -> Iterator[Refusal]:
        """Read the file; gives the records that are at fault, of two of one id the second."""
        for record in read_records(self._path, self._member):
            if isinstance(record, Refusal):
                yield record
                continue
            try:
                identity = record.name("question_id")
                if identity in self._found:
                    raise record.fault(f"asks question {identity}, as a record before it does")
                self._found[identity] = self._told(record)
            except Refusal as fault:
                yield fault

    def taken(self, answer: Record) -> tuple[str, Told]:
        """The id of the question that a record answers, and what is kept of the question.

        Raises:
            Refusal: there is none, or it was answered before.
        """
        identity = answer.name("question_id")
        if identity not in self._found:
            raise answer.fault(f"answers question {identity}, which {self._path.name} does not have")
        told = self._found[identity]
        if told is None:
            raise answer.fault(f"answers question {identity}, as a record before it does")
        self._found[identity] = None
        return identity, told

    def unanswered(self, answers: Path) -> Iterator[Refusal]:
        """The refusal that counts and names what was not taken, if there is any."""
        if left := [identity for identity, told in self._found.items() if told is not None]:
            some = ", ".join(left[:NAMED_AT_MOST]) + (", ..." if len(left) > NAMED_AT_MOST else "")
            yield Refusal(
                f"{self._path}: {answers.name} does not answer {len(left)} questions: {some}", WAY_ON
            )
