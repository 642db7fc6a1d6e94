"""What is wrong with a task before hours are spent on it: faults, broken images, leaks, texts cut short."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pamctl.evaluation.answers import metric_named
from pamctl.refusal import Refusal
from pamctl.tasks import open_task
from pamctl.tasks.image_check import Seen
from pamctl.tasks.jsonl import holds_jsonl, read_rows, task_files
from pamctl.tasks.splits import LEFT_OUT, ReadSplits
from pamctl.tasks.task import TEST, TRAIN, Example, Task, first_answer
from pamctl.tasks.text_check import TextLengths

NAMED_AT_MOST, HINTS_NAMED = 3, 10
ERRORS_NAMED = 100
"""Faults that are told one by one; a wrong path alone can make hundreds of thousands."""
TRAIN_AND_TEST = "train and test"

Rows = Iterator[Example | Refusal]


@dataclass
class TaskCheck:
    """What a check found.

    Attributes:
        splits: number of usable examples of each split.
        types: number of examples of each type of question, by split, where the task has types.
        images: how many there are, and how many were decoded.
        longest: most tokens of a prompt and answer together, with the tokenizer of `base`.
        errors: what makes training fail or a score worthless; the first of them where there are many.
        hints: what to do about them.
        more_errors: how many are not listed.
        warnings: what to know before trusting a score.
    """

    name: str
    splits: dict[str, int] = field(default_factory=dict)
    types: dict[str, dict[str, int]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    longest: int = 0
    base: str = ""
    errors: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    more_errors: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def lines(self) -> Iterator[str]:
        """All of it as text."""
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        yield f"{self.name}: {counts or 'no examples'}"
        for split, types in self.types.items():
            yield f"types of {split}: {', '.join(f'{kind} {count}' for kind, count in types.items())}"
        if self.images.get("distinct"):
            yield f"images: {self.images['distinct']}, decoded {self.images['decoded']}"
        if self.longest:
            yield f"longest text: {self.longest} tokens by the tokenizer of {self.base}"
        for kind, messages in (("error", self.errors), ("warning", self.warnings)):
            yield from (f"{kind}: {message}" for message in messages)
        if self.more_errors:
            yield f"error: {self.more_errors} more of these"
        yield from (f"hint: {hint}" for hint in self.hints)
        count = len(self.errors) + self.more_errors
        yield "sound" if self.ok else f"{count} error{'s' * (count > 1)}"

    def refused(self, fault: Refusal) -> None:
        """Add a record or file that is at fault, and what to do."""
        self.error(fault.what)
        if fault.way_on not in self.hints and len(self.hints) < HINTS_NAMED:
            self.hints.append(fault.way_on)

    def error(self, message: str) -> None:
        """Add an error that is not told yet, or count it where many are listed already."""
        if message in self.errors:
            return
        if len(self.errors) < ERRORS_NAMED:
            self.errors.append(message)
        else:
            self.more_errors += 1


def check_task(
    reference: str,
    on_examples: Callable[[int], None] = lambda _: None,
    *,
    base: str | None = None,
    every_image: bool = False,
) -> TaskCheck:
    """Read every example of a task, one after the other, and decode its images.

    Errors are records at fault, missing or broken images, answers that are empty, cannot be tokenised or are
    cut, an id that a split uses twice, and an image with its prompt in two splits. Warnings are an id written
    in a file that two splits share, another number of examples than the release has, and fewer answers than
    the metric needs for a full score.

    Args:
        on_examples: told how many examples have been read.
        base: whose tokenizer counts; where none is named the embedded base counts, and what is cut is only a
            warning.
        every_image: decode all images, where otherwise a part of very many is drawn.

    Raises:
        UsageRefusal: no task has this name, or a file of the release is missing.
    """
    path = Path(reference)
    if path.suffix == ".jsonl" or (
        path.is_dir() and holds_jsonl(path) and not (path / "task.toml").is_file()
    ):
        return _Checking(
            TaskCheck(os.path.basename(os.path.realpath(path))), Task("", {}), on_examples, base, every_image
        ).jsonl(path)
    task = open_task(reference)
    return _Checking(TaskCheck(task.name), task, on_examples, base, every_image).splits()


class _Checking:
    """One check under way."""

    def __init__(
        self,
        found: TaskCheck,
        task: Task,
        on_examples: Callable[[int], None],
        base: str | None,
        every_image: bool,
    ) -> None:
        self.found, self.task, self.on_examples = found, task, on_examples
        self.lengths = TextLengths(base, task.text_length, every_answer=task.visit is not first_answer)
        self.needed = metric_named(task.metric).answers_needed
        self.short = 0
        self.seen, self.every_image, self.done = Seen(), every_image, 0
        self.own_base = base is not None

    def splits(self) -> TaskCheck:
        """Check a task's splits; those that are made of the same examples are read once."""
        splits = self.task.splits
        if not isinstance(splits, ReadSplits):
            for name, examples in splits.items():
                self._split(name, iter(examples))
            return self._finished()
        for names in splits.alike():
            together = " and ".join(names)
            self._split(together, splits.rows(names[0]))
            self._compare_size(splits, names[0], self.found.splits[together])
        if LEFT_OUT in self.task.notes:
            left_out = splits.left_out()
            self.found.warnings.append(f"{left_out} examples are left out, because their image is missing")
        return self._finished()

    def jsonl(self, path: Path) -> TaskCheck:
        """Check a JSONL task, whose every line is read whatever is wrong with another."""
        splits: dict[str, list[Example | Refusal]] = {}
        given: dict[str, set[str]] = {}
        for file, split in task_files(path):
            for row in read_rows(file, split):
                if isinstance(row, Refusal):
                    self.found.refused(row)
                    continue
                name = row.split or TRAIN_AND_TEST
                splits.setdefault(name, []).append(row.example)
                if row.example.id != str(row.line):
                    given.setdefault(name, set()).add(row.example.id)
        for name, rows in splits.items():
            self._split(name, iter(rows))
        for first, second in itertools.combinations(given, 2):
            if shared := sorted(given[first] & given[second]):
                told = f"{len(shared)} ids are in {first} and in {second}: {_named(shared)}"
                self.found.warnings.append(told)
        if [*splits] == [TRAIN_AND_TEST]:
            self.found.warnings.append("no line names a split, so training and testing use the same examples")
        return self._finished()

    def _split(self, name: str, rows: Rows) -> None:
        """Note the faults of one split; a file that cannot be read is one of them."""
        ids: set[str] = set()
        types: Counter[str] = Counter()
        count = 0
        try:
            for row in rows:
                if isinstance(row, Refusal):
                    self.found.refused(row)
                    continue
                count += 1
                types[row.type or ""] += 1
                if row.id in ids:
                    self.found.error(f"{name}: id {row.id!r} is used twice")
                ids.add(row.id)
                self._example(name, row)
        except Refusal as fault:
            self.found.refused(fault)
        self.found.splits[name] = count
        if types.keys() - {""}:
            self.found.types[name] = {kind or "none": number for kind, number in sorted(types.items())}

    def _example(self, split: str, example: Example) -> None:
        answers = example.answers if self.task.visit is not first_answer else example.answers[:1]
        if not any(answer.strip() for answer in answers):
            self.found.error(f"{split}: id {example.id!r} has an empty answer")
        else:
            self.lengths.add(split, example)
        self.seen.add(split, example)
        self.short += split != TRAIN and len(example.answers) < self.needed
        self.done += 1
        self.on_examples(self.done)

    def _finished(self) -> TaskCheck:
        found, lengths = self.found, self.lengths.counted()
        found.base, found.longest = lengths.base, lengths.longest
        found.warnings += _absent_splits(found.splits)
        for told in lengths.told(_named):
            if self.own_base and not self.task.cuts:
                found.error(told)
            else:
                unsure = "" if self.own_base else "; --base names the base whose tokenizer counts"
                found.warnings.append(told + unsure)
        broken, decoded = self.seen.decoded(every=self.every_image)
        for fault in broken:
            found.refused(fault)
        found.images = {"distinct": len(self.seen), "decoded": decoded}
        for first, second, shared in self.seen.leaks():
            found.error(
                f"{len(shared)} examples of {second} have an image and prompt of {first}: {_named(shared)}"
            )
        if self.short:
            found.warnings.append(
                f"{self.short} examples have fewer than {self.needed} answers, with which no prediction can "
                f"score 100 by the metric {self.task.metric}"
            )
        found.warnings += [note for note in self.task.notes if note != LEFT_OUT]
        return found

    def _compare_size(self, splits: ReadSplits, split: str, count: int) -> None:
        released = splits.released_size(split)
        if released is not None and released != count:
            self.found.warnings.append(f"{split} has {count} examples, the release has {released}")


def _absent_splits(splits: Mapping[str, int]) -> Iterator[str]:
    """What is said where nothing has the name of the split that is trained on, or of the one scored."""
    names = [name for together in splits for name in together.split(" and ")]
    for wanted in (TRAIN, TEST):
        if names and wanted not in names:
            near = next((name for name in names if name.lower().startswith(wanted[:4])), None)
            asked = f": is it {near}?" if near else ""
            yield f"no split is called {wanted}{asked}"


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED_AT_MOST]) + (", ..." if len(ids) > NAMED_AT_MOST else "")
