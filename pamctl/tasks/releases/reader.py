"""What a reader is: all that tells one release of data from another, as one row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pamctl.refusal import Refusal
from pamctl.tasks.releases.release import Release
from pamctl.tasks.task import Example, Recipe, Visit, first_answer


@dataclass(frozen=True)
class Reader:
    """How the examples of a release are read, and what its task is where the TOML says nothing else.

    Attributes:
        name: what `reader` in a TOML says; the name of its file in `pamctl/tasks/readers/`.
        description: what is asked, in one line.
        source: where it is released.
        released: the splits that have answers; empty where only the data tell.
        read: (release, released split) -> every example, or the refusal that tells its fault, in order.
        splits: split of the task -> expression over the released ones.
        files: patterns, "|" between those of which one is enough; a folder that has a match for each is
            taken for this release.
        told_apart: (release) -> whether it is this release, where the files alone do not tell.
        images: where images are looked for beside the files, such as `images`, `train2014.zip`.
        template: the prompt; names in braces are fields that `read` gives.
        metric: of `pamctl.evaluation.answers`.
        coin_metric: the one with `scoring = "coin"`; None where CoIN has none.
        text_length: most tokens of prefix, separator and answer together.
        cuts: whether a longer text is cut, and not refused.
        visit: what is trained on at each visit.
        frames, stride: of a video, how many are seen and how far apart; 1 of a picture.
        sizes: released split -> how many examples it has, for `pamctl tasks check`.
        notes: what to know before trusting a score.
        options: further keys that its TOML may have.
        task: what it is called where no TOML has a name; empty for the folder's.
        scoring: which metric it has where the TOML names neither metric nor scoring.
        resolved: (release) -> the row of the one task that is meant, where a release holds several; it reads
            no example.
    """

    name: str
    description: str
    source: str
    released: tuple[str, ...]
    read: Callable[[Release, str], Iterator[Example | Refusal]]
    splits: Mapping[str, str]
    files: tuple[str, ...] = ()
    told_apart: Callable[[Release], bool] = lambda release: True
    images: tuple[str, ...] = ("images", "images.zip", "images.tar")
    template: str = "answer en {question}"
    metric: str = "exact"
    coin_metric: str | None = None
    text_length: int = 32
    cuts: bool = True
    visit: Visit = first_answer
    frames: int = 1
    stride: int = 1
    recipe: Recipe = field(default_factory=Recipe)
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    task: str = ""
    scoring: Literal["paligemma", "coin"] = "paligemma"
    resolved: "Callable[[Release], Reader] | None" = None

    def takes(self, release: Release) -> bool:
        """Whether a folder holds this release, by its files."""
        matched = [
            any(any(release.folder.glob(pattern)) for pattern in patterns.split("|"))
            for patterns in self.files
        ]
        return bool(matched) and all(matched) and self.told_apart(release)

    def to_json(self) -> dict[str, Any]:
        """What a person is told of it."""
        told = ("name", "description", "source", "metric", "coin_metric", "template", "text_length", "frames")
        found = {name: getattr(self, name) for name in told}
        return {**found, "splits": dict(self.splits), "sizes": dict(self.sizes), "files": list(self.files)}
