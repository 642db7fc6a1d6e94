"""What a reader is given of a release on disk: its files, its images, and how the prompt is written."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, Literal

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.characters import CUT, whole_characters
from pamctl.tasks.images import Images, Picture
from pamctl.tasks.releases.record import Record
from pamctl.tasks.task import Example, LoadImages
from pamctl.tasks.videos import FrameSource, VideoClip, Videos

_FIELD = re.compile(r"\{(\w+)\}")


class MissingImage(Refusal):
    """An image or video that no folder or archive has, which `missing = "skip"` leaves out."""


@dataclass
class Release:
    """The files of one release, as a TOML or its folder tells.

    Attributes:
        folder: that holds them.
        images: folders and archives; of a release of videos, the folders that hold them.
        template: of the prompt.
        missing: whether an example without its image is at fault, or left out.
        frames, stride: of a video.
        options: the reader's own keys of the TOML.
        skipped: how many examples were left out since the release was opened.
    """

    folder: Path
    images: Images
    template: str = "{question}"
    missing: Literal["refuse", "skip"] = "refuse"
    frames: int = 1
    stride: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    skipped: int = 0
    _pictures: dict[str, Picture] = field(default_factory=dict)
    _sources: dict[str, FrameSource] = field(default_factory=dict)

    def file(self, *patterns: str) -> Path:
        """The first file of the folder, or of one folder below, that matches a pattern.

        Raises:
            UsageRefusal: there is none; the first pattern is named.
        """
        for pattern in patterns:
            for found in (*sorted(self.folder.glob(pattern)), *sorted(self.folder.glob(f"*/{pattern}"))):
                if found.is_file():
                    return found
        raise UsageRefusal(
            f"{self.folder} has no {patterns[0]}",
            "put it there as it was released, or name its folder as `data`",
        )

    def prompt(self, **fields: str) -> str:
        """The template with its fields filled in.

        Raises:
            UsageRefusal: the template names another field.
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in fields:
                raise UsageRefusal(
                    f"the template {self.template!r} names {match[1]}",
                    f"fields of this release: {', '.join(fields)}",
                )
            return fields[match[1]]

        return _FIELD.sub(value, self.template)

    def picture(self, name: str, where: str) -> Picture:
        """The picture of a name, of which leading folders may be missing on disk.

        Raises:
            MissingImage: no source has it.
        """
        if name not in self._pictures:
            found = self.images.find(name, where)
            if found is None:
                raise MissingImage(
                    f"{where}: image {name} is not in {self.images}",
                    'put it there, or in the TOML name its place as `images`, or set missing = "skip"',
                )
            self._pictures[name] = found
        return self._pictures[name]

    def clip(self, names: Sequence[str], where: str) -> VideoClip:
        """The clip of a video by the first of some names that a place has, without an ending.

        Raises:
            MissingImage: no place has it.
        """
        if names[0] not in self._sources:
            found = self._videos.find(names, where)
            if found is None:
                raise MissingImage(
                    f"{where}: video {names[0]} is not in {self._videos}",
                    "put it there as a file, a folder of frames or a .npy file, or in the TOML name its "
                    'place as `images`, or set missing = "skip"',
                )
            self._sources[names[0]] = found
        return VideoClip(self._sources[names[0]], self.frames, self.stride)

    @cached_property
    def _videos(self) -> Videos:
        return Videos(self.images.paths)

    def rows(
        self, records: Iterable[Record | Refusal], made: Callable[[Record], Iterable[Example]]
    ) -> Iterator[Example | Refusal]:
        """The examples made of some records, with a refusal in place of each record that is at fault.

        Args:
            made: the examples of one record: none where the release has no use for it.
        """
        for record in records:
            if isinstance(record, Refusal):
                yield record
                continue
            try:
                yield from made(record)
            except MissingImage as fault:
                if self.missing == "refuse":
                    yield fault
                self.skipped += self.missing == "skip"
            except Refusal as fault:
                yield fault


def example(
    record: Record,
    identity: str,
    prefix: str,
    answers: Sequence[str],
    load_images: LoadImages,
    type: str | None = None,
) -> Example:
    """An example whose answers are stored once however often they occur.

    Raises:
        Refusal: there is no answer, every one is blank, or a text is not made of whole characters.
    """
    if not any(answer.strip() for answer in answers):
        raise record.fault("has no answer", "remove it, or use the file as it was released")
    refuse_half_characters(record, (identity, prefix, type or "", *answers))
    kind = None if type is None else intern(type)
    return Example(identity, prefix, tuple(map(intern, answers)), load_images, kind)


def refuse_half_characters(record: Record, texts: Iterable[str]) -> None:
    """Refuse texts of a record that are not made of whole characters."""
    if not whole_characters(texts):
        raise record.fault(CUT, "write the whole character, or use the file as it was released")
