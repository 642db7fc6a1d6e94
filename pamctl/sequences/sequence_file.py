"""Reading a sequence file, all of it checked before anything is trained; every refusal names file and key."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pamctl.known_names import meant, refuse_unknown
from pamctl.merging.methods import method_named as merging_named
from pamctl.merging.methods.settings import resolved
from pamctl.refusal import UsageRefusal
from pamctl.sequences import shipped
from pamctl.sequences.contents import SequenceFile, System, TaskEntry
from pamctl.sequences.keys import OF_A_TASK, OF_THE_BASE, SETTINGS, settings_in
from pamctl.training.configuration import Settings, resolve_method
from pamctl.training.methods import METHODS, Merging, method_named

TOP = ("tasks", "orders", "seeds", "base", "data", "settings", "methods")
ADAPTERS = 2
"""That a merge joins: the global one and the task's."""
ONLY_ORDER = "order-1"
"""What the order of `tasks = [...]` is called."""
RESERVED = ("alone", "jobs", "report", "zero-shot")
"""Folders and units of a run that are no order."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


def read_sequence(reference: str | Path, base: str | None = None) -> SequenceFile:
    """Read a sequence file, or the shipped one of that name.

    Args:
        base: in place of the file's.

    Raises:
        UsageRefusal: no such file, not TOML, or a key or value that a sequence does not have.
    """
    path = Path(reference)
    own = None if path.is_file() else shipped.file_named(str(reference))
    path = own or path
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except OSError as fault:
        raise UsageRefusal(
            f"{reference}: {fault.strerror}", f"give a .toml file, or one of: {', '.join(shipped.names())}"
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise UsageRefusal(f"{reference} is not TOML: {fault}", "correct it") from fault
    place = str(path) if own is None else str(reference)
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
        way_on = meant(table["name"], METHODS) + refusal.way_on
        raise UsageRefusal(f"{place}: {refusal.what}", way_on) from refusal
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
