"""What a serving rule looks at: an adapter's files as a loader would find them."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats import open_adapter, refuse_unwritable
from pamctl.adapters.formats.peft_patterns import PREFIX
from pamctl.adapters.formats.stored import Stored
from pamctl.adapters.module_names import canonical_ids
from pamctl.refusal import Refusal

Fault = tuple[str, str, str]
"""Where a loader goes wrong, what it does there, and what mends it: the last three fields of a finding."""

FACTOR = re.compile(r"(?P<path>.+)\.(?P<factor>lora_(?:embedding_)?[AB])(?:\.(?!bias$)[^.]+)?(?:\.weight)?")
LAYER = re.compile(r"(?P<stack>.*[._](?:layers|h|blocks))\.(?P<layer>\d{1,6})\.(?P<kind>.+)")


@dataclass(frozen=True)
class Candidate:
    """An adapter as a loader would find it, and the ways to mend it.

    Args:
        format: of the files.
        wanted: the format that the loader reads best.
        options: those that the server will be started with.
    """

    reference: str
    target: str
    format: str
    wanted: str
    stored: Stored
    options: tuple[str, ...]
    allow_pickle: bool

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The rank of each module by its path in the file, of the files that have peft's names."""
        found = {}
        for name, entry in self.stored.tensors.items():
            match = FACTOR.fullmatch(name)
            if match and match["factor"].endswith("A") and entry.shape:
                found[match["path"].removeprefix(PREFIX)] = entry.shape[0]
        return found

    @cached_property
    def ids(self) -> dict[str, str]:
        base = self.setting("base_model_name_or_path")
        return canonical_ids(self.ranks, base if isinstance(base, str) else None)

    @cached_property
    def others(self) -> list[str]:
        """The tensors that are no factors."""
        return [name for name in self.stored.tensors if not FACTOR.fullmatch(name)]

    def setting(self, field: str) -> Any:
        return self.stored.settings.get(field)

    def option(self, name: str) -> str | None:
        """What follows an option of the server, empty for a flag; None where it is not given."""
        for at, option in enumerate(self.options):
            if option == name:
                following = self.options[at + 1 : at + 2]
                return following[0] if following and not following[0].startswith("-") else ""
            if option.startswith(f"{name}="):
                return option.partition("=")[2]
        return None

    def convert(self, format: str, *flags: str) -> str:
        """The command that writes the adapter as the loader wants it, or why there is none."""
        opened = self._opened
        name = re.sub(r"\W+", "-", Path(self.reference).name.removesuffix(".safetensors")).strip("-")
        output = f"{name or 'adapter'}-{self.target}"
        try:
            if isinstance(opened, Refusal):
                raise opened
            refuse_unwritable(opened, Path(output), format)
        except Refusal as refusal:
            return f"it cannot be converted ({refusal.what}): {refusal.way_on}"
        words = ["pamctl", "convert", self.reference, "-o", output, "--format", format, *flags]
        return shlex.join([*words, "--allow-pickle"] if self.allow_pickle else words)

    @cached_property
    def _opened(self) -> Adapter | Refusal:
        try:
            return open_adapter(self.reference, allow_pickle=self.allow_pickle)
        except Refusal as refusal:
            return refusal


Rule = Callable[[Candidate], Iterable[Fault]]


def file_name(*names: str) -> Rule:
    """The loader takes files of these names only."""

    def check(it: Candidate) -> Iterator[Fault]:
        if it.stored.file.name not in names:
            why = f"the loader looks for {' or '.join(names)}"
            yield str(it.stored.file), why, it.convert(it.wanted)

    return check
