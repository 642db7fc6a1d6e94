"""What a sequence file says: tasks in their orders, seeds, and methods with their settings."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pamctl.merging.methods import method_named as merging_named
from pamctl.merging.methods.settings import resolved
from pamctl.refusal import UsageRefusal
from pamctl.sequences import shipped
from pamctl.sequences.keys import (
    OF_A_TASK,
    OF_THE_BASE,
    SETTINGS,
    over,
    refuse_unknown,
    settings_in,
)
from pamctl.tasks.embedded import embedded_tasks
from pamctl.training.configuration import Settings, resolve_method
from pamctl.training.methods import METHODS, Merging, Method, method_named

SCHEMA = "pamctl.sequence/1"
TOP = ("tasks", "orders", "seeds", "base", "data", "settings", "methods")
ADAPTERS = 2
"""That a merge joins: the global one and the task's."""
ONLY_ORDER = "order-1"
"""What the order of `tasks = [...]` is called."""
RESERVED = ("alone", "jobs", "report", "zero-shot")
"""Folders and units of a run that are no order."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")
_VARIABLE = re.compile(r"\$\{?(\w+)")


@dataclass(frozen=True)
class System:
    """A method as one row of a comparison: its settings, and the label that tells it from its like.

    Attributes:
        settings: over those of the sequence and of the task.
        merge: in place of the method's own; None for that.
        orders, seeds: where it runs; None for everywhere.
    """

    method: str
    run: str | None = None
    settings: Settings = field(default_factory=lambda: Settings())
    merge: Merging | None = None
    orders: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        """Its folder's name, and what `--only method=` may call it."""
        return f"{self.method}-{self.run}" if self.run else self.method

    def merges_by(self, method: Method) -> Merging | None:
        """How task adapters are merged, the method being resolved; None for not at all."""
        return method.merge if self.merge is None else self.merge

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "run": self.run,
            "settings": dict(self.settings),
            "merge": None if self.merge is None else dict(self.merge),
        }


@dataclass(frozen=True)
class TaskEntry:
    """A task of the file: where it is, and its own settings.

    Attributes:
        path: of its file or folder, from the data folder on; None for the task's name.
    """

    name: str
    path: str | None = None
    settings: Settings = field(default_factory=lambda: Settings())


@dataclass(frozen=True)
class SequenceFile:
    """A sequence file, checked.

    Attributes:
        place: the file, for messages.
        folder: from which a relative `data` starts; None for a shipped file.
        data: the folder from which paths of tasks start, as written.
    """

    place: str
    folder: Path | None
    orders: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    tasks: Mapping[str, TaskEntry]
    systems: tuple[System, ...]
    settings: Settings
    base: str | None = None
    data: str | None = None

    @cached_property
    def order_names(self) -> tuple[str, ...]:
        return tuple(self.orders)

    def settings_of(self, system: System, tasks: Sequence[str]) -> Settings:
        """What `train-task` is told beside method and seed: of all, over it of the task, of the method.

        Raises:
            UsageRefusal: tasks learned at once have settings of their own that differ.
        """
        merged = over(self._of_tasks(system, tasks), system.settings)
        return cast(Settings, {name: value for name, value in merged.items() if name in SETTINGS.values()})

    def _of_tasks(self, system: System, tasks: Sequence[str]) -> Settings:
        each = [over(self.settings, self.tasks[name].settings) for name in tasks]
        said = system.settings.keys() | (
            {"steps", "epochs"} if {"steps", "epochs"} & {*system.settings} else set()
        )
        for name in sorted({name for settings in each for name in settings} - said):
            if len({repr(settings.get(name)) for settings in each}) > 1:
                raise UsageRefusal(
                    f"{self.place}: {system.method} learns all tasks at once, and their {name} differ",
                    f"give {name} in its [[methods]] entry",
                )
        return cast(Settings, {name: value for name, value in each[0].items() if name not in said})

    def to_json(self) -> dict[str, Any]:
        """What decides the numbers of the cells, and nothing of the machine."""
        return {
            "schema": SCHEMA,
            "base": self.base,
            "settings": dict(self.settings),
            "tasks": {name: dict(entry.settings) for name, entry in self.tasks.items()},
            "orders": {name: list(tasks) for name, tasks in self.orders.items()},
            "methods": {system.label: system.to_json() for system in self.systems},
        }


def read_sequence(reference: str, base: str | None = None) -> SequenceFile:
    """Read a sequence file, or the shipped one of that name.

    Args:
        base: in place of the file's.

    Raises:
        UsageRefusal: no such file, not TOML, or a key or value that a sequence does not have.
    """
    path = Path(reference)
    own = None if path.is_file() else shipped.file_named(reference)
    path = own or path
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except OSError as fault:
        raise UsageRefusal(
            f"{reference}: {fault.strerror}", f"give a .toml file, or one of: {', '.join(shipped.names())}"
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise UsageRefusal(f"{reference} is not TOML: {fault}", "correct it") from fault
    place = str(path) if own is None else reference
    return sequence_of(table, place, None if own else path.absolute().parent, base)


def sequence_of(
    table: Mapping[str, Any], place: str, folder: Path | None = None, base: str | None = None
) -> SequenceFile:
    """The sequence that a table holds; arguments and errors as for `read_sequence`."""
    entries = table.get("tasks")
    tables = entries if isinstance(entries, Mapping) else {}
    refuse_unknown(table, TOP, place)
    orders = _orders(table, place)
    names = list(dict.fromkeys(name for tasks in orders.values() for name in tasks))
    refuse_unknown(tables, names, f"{place}: [tasks]")
    settings = settings_in(_table(table, "settings", place), f"{place}: [settings]")
    seeds = _seeds(table.get("seeds", [0]), f"{place}: seeds")
    systems = tuple(
        _system(entry, f"{place}: [[methods]] number {number}", tuple(orders), seeds)
        for number, entry in enumerate(_methods(table, place), start=1)
    )
    _refuse_twice([system.label for system in systems], place)
    found = SequenceFile(
        place,
        folder,
        orders,
        seeds,
        {name: _task(name, tables.get(name, {}), f"{place}: [tasks.{name}]") for name in names},
        systems,
        settings,
        base or _text(table, "base", place),
        _text(table, "data", place),
    )
    for system in systems:
        _refuse_impossible(found, system)
    return found


def located(file: SequenceFile, data: str | None = None) -> dict[str, str]:
    """What `train-task` is given for each task: an embedded task's name, or an absolute path.

    Args:
        data: in place of the file's; it starts from the working folder.

    Raises:
        UsageRefusal: the data folder is not known, or a task is neither there nor embedded.
    """
    embedded = embedded_tasks()
    return {
        name: name if entry.path is None and name in embedded else str(_path(file, entry, data))
        for name, entry in file.tasks.items()
    }


def _path(file: SequenceFile, entry: TaskEntry, data: str | None) -> Path:
    path = Path(_expanded(entry.path or entry.name, f"{file.place}: [tasks.{entry.name}] path"))
    if not path.is_absolute():
        path = _data_folder(file, data, entry.name) / path
    if not path.exists():
        nearest = get_close_matches(entry.name, embedded_tasks(), n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageRefusal(
            f"{file.place}: task {entry.name} is not at {path}",
            f"{meant}put it there, or give its path, the file's data, or --data DIR",
        )
    return path


def _data_folder(file: SequenceFile, data: str | None, task: str) -> Path:
    if data is not None:
        return Path(data).expanduser().absolute()
    if file.data is not None:
        return (file.folder or Path.cwd()) / _expanded(file.data, f"{file.place}: data")
    if file.folder is None:
        raise UsageRefusal(
            f"{file.place} does not tell where its tasks are, such as {task}",
            "give the folder that holds them with --data DIR",
        )
    return file.folder


def _expanded(text: str, place: str) -> str:
    expanded = os.path.expanduser(os.path.expandvars(text))
    if left := _VARIABLE.search(expanded):
        raise UsageRefusal(f"{place} is {text!r}, and {left[1]} is not set", f"set {left[1]}")
    return expanded


def _orders(table: Mapping[str, Any], place: str) -> dict[str, tuple[str, ...]]:
    if isinstance(table.get("tasks"), list):
        if "orders" in table:
            raise UsageRefusal(f"{place}: tasks and orders both list tasks", "keep one of them")
        given: Mapping[str, Any] = {ONLY_ORDER: table["tasks"]}
    else:
        given = _table(table, "orders", place)
    if not given:
        raise UsageRefusal(f"{place} lists no tasks", 'add tasks = ["..."], or [orders] with such lists')
    for name, tasks in given.items():
        _refuse_bad_label(name, f"{place}: [orders] {name}")
        if name in RESERVED:
            raise UsageRefusal(f"{place}: an order is called {name}", "that folder is for something else")
        where = f"{place}: {'tasks' if 'orders' not in table else f'[orders] {name}'}"
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            raise UsageRefusal(f"{where} is {tasks!r}", "give a list of tasks")
        if len(tasks) < 2 or len({*tasks}) < len(tasks):
            raise UsageRefusal(f"{where} is {tasks!r}", "give two tasks or more, each once")
        for task in tasks:
            _refuse_bad_label(task, f"{where}: {task!r}")
    return {name: tuple(tasks) for name, tasks in given.items()}


def _seeds(value: Any, place: str, among: Sequence[int] | None = None) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int for seed in value):
        raise UsageRefusal(f"{place} is {value!r}", "give a list of whole numbers")
    if len({*value}) < len(value) or not all(0 <= seed < 2**32 for seed in value):
        raise UsageRefusal(f"{place} is {value!r}", "give each once, from 0 to 4294967295")
    if among is not None and (other := [seed for seed in value if seed not in among]):
        raise UsageRefusal(f"{place} has {other[0]}", f"use seeds of the file: {', '.join(map(str, among))}")
    return tuple(value)


def _methods(table: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
    given = table.get("methods")
    if not isinstance(given, list) or not given:
        raise UsageRefusal(f"{place} has no methods", 'add [[methods]] with a name, or methods = ["pam"]')
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in given]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise UsageRefusal(
                f"{place}: [[methods]] number {number} has no name", f"use one of: {', '.join(METHODS)}"
            )
    return entries


def _system(table: Mapping[str, Any], place: str, orders: Sequence[str], seeds: Sequence[int]) -> System:
    place = f"{place} ({table['name']})"
    own = ("name", "run", "merge", "orders", "seeds")
    refuse_unknown(table, (*own, *(key for key in SETTINGS if key not in OF_THE_BASE)), place)
    try:
        method_named(table["name"])
    except UsageRefusal as refusal:
        nearest = get_close_matches(table["name"], METHODS, n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageRefusal(f"{place}: {refusal.what}", meant + refusal.way_on) from refusal
    if (run := _text(table, "run", place)) is not None:
        _refuse_bad_label(run, f"{place}: run")
    where = table.get("orders")
    if where is not None:
        if not isinstance(where, list) or not where:
            raise UsageRefusal(f"{place}: orders is {where!r}", "give a list of the file's orders")
        refuse_unknown([str(name) for name in where], orders, f"{place}: orders")
    return System(
        table["name"],
        run,
        settings_in({key: value for key, value in table.items() if key not in own}, place),
        _merge(table["merge"], f"{place}: merge") if "merge" in table else None,
        None if where is None else tuple(where),
        None if "seeds" not in table else _seeds(table["seeds"], f"{place}: seeds", seeds),
    )


def _merge(value: Any, place: str) -> Merging:
    if not isinstance(value, Mapping) or not isinstance(value.get("method"), str):
        raise UsageRefusal(f"{place} is {value!r}", 'give { method = "ties", density = 0.9 } or the like')
    parameters = {name: part for name, part in value.items() if name != "method"}
    try:
        method = merging_named(value["method"])
        resolved(method, None, parameters, ADAPTERS)
        if "factor" not in method.spaces:
            raise UsageRefusal(f"{method.name} does not merge factors", "choose another method")
    except UsageRefusal as refusal:
        raise UsageRefusal(f"{place}: {refusal.what}", refusal.way_on) from refusal
    return value


def _task(name: str, table: Any, place: str) -> TaskEntry:
    if not isinstance(table, Mapping):
        raise UsageRefusal(f"{place} is no table", f"write it as [tasks.{name}]")
    refuse_unknown(table, ("path", *OF_A_TASK), place)
    given = {key: value for key, value in table.items() if key != "path"}
    return TaskEntry(name, _text(table, "path", place), settings_in(given, place))


def _refuse_impossible(file: SequenceFile, system: System) -> None:
    """Refuse a method whose settings exclude each other, for every task before any is trained."""
    method = method_named(system.method)
    groups = list(file.orders.values()) if method.at_once else [(name,) for name in file.tasks]
    try:
        for tasks in groups:
            settings: Settings = {**file.settings_of(system, tasks), "method": system.method}
            resolve_method(settings, has_global=method.continues)
    except UsageRefusal as refusal:
        where = "" if refusal.what.startswith(file.place) else f"{file.place}: {system.label}: "
        raise UsageRefusal(where + refusal.what, refusal.way_on) from refusal


def _refuse_twice(labels: Sequence[str], place: str) -> None:
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageRefusal(
            f"{place}: two [[methods]] are called {twice}", 'give one of them a run label, as run = "p=30"'
        )


def _refuse_bad_label(text: str, place: str) -> None:
    if not _LABEL.fullmatch(text):
        raise UsageRefusal(
            f"{place} is no name for a folder", "use letters and digits, and after the first also . _ + = -"
        )


def _table(table: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise UsageRefusal(f"{place}: {key} is no table", f"write it as [{key}]")
    return value


def _text(table: Mapping[str, Any], key: str, place: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise UsageRefusal(f"{place}: {key} is {value!r}", "give a text")
    return value
