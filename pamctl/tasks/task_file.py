"""What a task's TOML says, and the task it makes of data as it was released.

    reader = "vqav2"                # of `pamctl tasks list`; default: "jsonl" where such files are
    data = "vqa"                    # folder of the release; default: the TOML's own
    images = ["train2014.zip"]      # folders, .zip, .tar; default: where the reader expects them
    missing = "skip"                # leave out examples without their image; default: "refuse"
    metric = "vqa"                  # or scoring = "coin"
    template = "answer en {question}"
    answers = "sampled"             # another answer at each visit, or "first"
    text_length = 32

    [splits]                        # of the released ones, whole or in part
    train = "train+val[:-10240]"
    test = "val[-10240:]"

    [subsample]                     # how many of a split, drawn by (seed, id)
    test = 5000

    [recipe]                        # flags of train-task override it
    epochs = 3

What is left out is as the release has it; of splits, where any is named, only train and test are. A folder
that a reader recognises needs no TOML at all.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from pamctl.evaluation.answers import METRICS
from pamctl.known_names import refuse_unknown
from pamctl.refusal import UsageRefusal
from pamctl.tasks.images import Images
from pamctl.tasks.jsonl import holds_jsonl
from pamctl.tasks.readers import readers
from pamctl.tasks.releases import Reader, Release
from pamctl.tasks.splits import LEFT_OUT, ReadSplits, parts_of
from pamctl.tasks.task import TEST, TRAIN, Recipe, Task, Visit, first_answer
from pamctl.tasks.visits import sampled_answer

FILE_NAME = "task.toml"
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "reader": str,
    "name": str,
    "description": str,
    "data": str,
    "images": (str, list),
    "missing": str,
    "metric": str,
    "scoring": str,
    "template": str,
    "answers": str,
    "text_length": int,
    "max_new_tokens": int,
    "frames": int,
    "stride": int,
    "splits": dict,
    "subsample": dict,
    "subsample_seed": int,
    "recipe": dict,
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "missing": ("refuse", "skip"),
    "scoring": ("paligemma", "coin"),
    "answers": ("sampled", "first"),
}
LEAST_ONE = ("text_length", "max_new_tokens", "frames", "stride")
MOST = 1 << 20
"""Of each of these: more than any base has a use for, and less than what exhausts the memory."""
_VISITS: Mapping[str, Visit] = {"sampled": sampled_answer, "first": first_answer}
_SPELLED = {"lr": "learning_rate"}
_WORDS = {str: "a text", int: "a whole number", dict: "a table", float: "a number", list: "a list of texts"}


@dataclass(frozen=True)
class TaskFile:
    """A task as a TOML or a recognised folder tells it.

    Attributes:
        place: the file or folder, for messages.
        folder: from which its paths start.
        table: what the TOML says, checked; empty for a folder without one.
    """

    place: Path
    folder: Path
    reader: Reader
    table: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As the TOML says, else that of the file; of one called task.toml, the reader's or the folder's."""
        stem = self.place.resolve().stem if self.place.suffix == ".toml" else "task"
        own = self.reader.task or self.folder.resolve().name
        return str(self.table.get("name") or (own if stem == "task" else stem))

    def task(self) -> Task:
        """The task; nothing of the release is read before a split is asked for.

        Raises:
            UsageRefusal: a value says nothing, with file and key.
        """
        release = self._release()
        if self.reader.resolved is not None:
            return replace(self, reader=self.reader.resolved(release))._task(release)
        return self._task(release)

    def _task(self, release: Release) -> Task:
        reader, table = self.reader, self.table
        text_length = table.get("text_length", reader.text_length)
        return Task(
            name=self.name,
            splits=self._splits(release),
            description=table.get("description", reader.description),
            metric=self._metric(),
            visit=_VISITS[table["answers"]] if "answers" in table else reader.visit,
            frames=release.frames,
            text_length=text_length,
            cuts=reader.cuts,
            max_new_tokens=table.get("max_new_tokens", text_length),
            recipe=self._recipe(),
            notes=self._notes(),
            path=str(self.place),
        )

    def _release(self) -> Release:
        data = self.folder / self.table.get("data", ".")
        if not data.is_dir():
            raise UsageRefusal(
                f"{self.place}: data is {data}, which is no folder", "name the release's folder"
            )
        return Release(
            data,
            Images(self._images(data)),
            self.table.get("template", self.reader.template),
            self.table.get("missing", "refuse"),
            self.table.get("frames", self.reader.frames),
            self.table.get("stride", self.reader.stride),
            {key: self.table[key] for key in self.reader.options if key in self.table},
        )

    def _images(self, data: Path) -> list[Path]:
        """The places that the TOML names, from its folder on; else those of the reader's that are there."""
        if "images" not in self.table:
            return [data / place for place in self.reader.images if (data / place).exists()]
        named = self.table["images"]
        return [self.folder / place for place in ([named] if isinstance(named, str) else named)]

    def _splits(self, release: Release) -> ReadSplits:
        reader, own = self.reader, self.table.get("splits", {})
        usual = {name: of for name, of in reader.splits.items() if not own or name in (TRAIN, TEST)}
        said = {**(usual if reader.released or not own else {}), **own}
        for name, expression in said.items():
            _check(expression, str, f"{self.place}: splits.{name}")
        parts = {
            name: parts_of(expression, reader.released, f"{self.place}: splits.{name}")
            for name, expression in said.items()
        }
        most = self.table.get("subsample", {})
        refuse_unknown(most, list(parts), f"{self.place}: subsample")
        for name, count in most.items():
            _check(count, int, f"{self.place}: subsample.{name}")
            _refuse_below(count, 1, f"{self.place}: subsample.{name}")
        return ReadSplits(
            lambda split: reader.read(release, split),
            parts,
            most,
            self.table.get("subsample_seed", 0),
            reader.sizes,
            lambda: release.skipped,
        )

    def _metric(self) -> str:
        if "metric" in self.table:
            if "scoring" in self.table:
                raise UsageRefusal(f"{self.place} has metric and scoring", "keep one of them")
            refuse_unknown([self.table["metric"]], list(METRICS), f"{self.place}: metric")
            return str(self.table["metric"])
        if self.table.get("scoring", self.reader.scoring) != "coin":
            return self.reader.metric
        if self.reader.coin_metric is None:
            raise UsageRefusal(
                f"{self.place}: CoIN does not score {self.reader.name}", "leave scoring out, or name a metric"
            )
        return self.reader.coin_metric

    def _recipe(self) -> Recipe:
        said = self.table.get("recipe", {})
        known = {_spelled(field.name): field for field in fields(Recipe)}
        refuse_unknown(said, list(known), f"{self.place}: recipe")
        values: dict[str, Any] = {}
        for key, value in said.items():
            kind = int if known[key].name in ("steps", "epochs", "batch_size", "align_every") else float
            _check(value, (int, float) if kind is float else int, f"{self.place}: recipe.{key}")
            _refuse_below(value, 1 if kind is int else 0, f"{self.place}: recipe.{key}")
            values[known[key].name] = kind(value)
        return replace(self.reader.recipe, **values)

    def _notes(self) -> tuple[str, ...]:
        own = self.reader.notes if "test" not in self.table.get("splits", {}) else ()
        return (*own, *([LEFT_OUT] if self.table.get("missing") == "skip" else []))


def read_task_file(path: Path) -> TaskFile:
    """The task of a TOML.

    Raises:
        UsageRefusal: it is not TOML, or a key or value is not known.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UsageRefusal(
            f"{path} is not TOML: {fault}", "see pamctl tasks --help for an example"
        ) from fault
    own = "jsonl" if "file" in table or holds_jsonl(path.parent) else None
    named = table.get("reader", own)
    if named is None:
        raise UsageRefusal(f"{path} has no `reader`", f"give one of: {', '.join(readers())}")
    _check(named, str, f"{path}: reader")
    refuse_unknown([named], list(readers()), f"{path}: reader")
    reader = readers()[named]
    refuse_unknown(table, [*KEYS, *reader.options], str(path))
    for key, value in table.items():
        if key in KEYS:
            _check(value, KEYS[key], f"{path}: {key}")
        if key in CHOICES and value not in CHOICES[key]:
            raise UsageRefusal(f"{path}: {key} is {value!r}", f"give {' or '.join(CHOICES[key])}")
        if key in LEAST_ONE:
            _refuse_below(value, 1, f"{path}: {key}")
            if value > MOST:
                raise UsageRefusal(f"{path}: {key} is {value}", f"give {MOST} or less")
        if key == "frames" and value > 1 and reader.frames == 1:
            raise UsageRefusal(f"{path}: frames is {value}, and {named} has pictures", "leave frames out")
        _refuse_nul(value, f"{path}: {key}")
    return TaskFile(path, path.parent, reader, table)


def recognised(folder: Path) -> TaskFile | None:
    """The task of a folder that holds a release as it was released; None where no reader knows it."""
    for reader in readers().values():
        release = Release(folder, Images([]))
        if reader.takes(release):
            return TaskFile(folder, folder, reader, {})
    return None


def _spelled(name: str) -> str:
    return next((key for key, field in _SPELLED.items() if field == name), name)


def _check(value: object, kinds: type | tuple[type, ...], where: str) -> None:
    known = kinds if isinstance(kinds, tuple) else (kinds,)
    listed = isinstance(value, list) and not all(
        isinstance(each, str) for each in cast("Sequence[object]", value)
    )
    if isinstance(value, bool) or not isinstance(value, known) or listed:
        raise UsageRefusal(f"{where} is {value!r}", f"give {' or '.join(_WORDS[each] for each in known)}")


def _refuse_below(value: float, least: int, where: str) -> None:
    if not least <= value < math.inf:
        raise UsageRefusal(f"{where} is {value}", f"give {least} or more")


def _refuse_nul(value: object, where: str) -> None:
    """Refuse a text with a NUL character, which no name of a file can have."""
    match value:
        case str() if "\0" in value:
            raise UsageRefusal(f"{where} has a NUL character", "leave it out")
        case list() | dict():
            for each in value.values() if isinstance(value, dict) else value:
                _refuse_nul(each, where)
