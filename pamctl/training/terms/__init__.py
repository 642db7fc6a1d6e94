"""Terms that a method may add to the loss: `--term NAME` is the `TERM` of the file NAME in this folder."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pamctl.refusal import UsageRefusal
from pamctl.training.terms.step import Term

__all__ = ["Term", "resolved_terms", "term_names", "term_record"]


def term_names() -> list[str]:
    """Return the names of all terms: those of the files in this folder that hold one."""
    return [module.name for module in iter_modules(__path__) if module.name != "step"]


def resolved_terms(*specifications: Iterable[str]) -> tuple[tuple[str, Term], ...]:
    """Return the terms that some specifications ask for, by name; a later one of a name replaces the earlier.

    A term of weight 0 is none: it costs nothing, and the rest is computed as without it.

    Args:
        specifications: lists of `NAME` or `NAME:parameter=value,...`.

    Raises:
        UsageRefusal: a name, parameter or value is not one that there is.
    """
    given = dict(_parsed(text) for texts in specifications for text in texts)
    return tuple((name, term) for name, term in given.items() if term.weight)


def term_record(terms: Iterable[tuple[str, Term]]) -> list[dict[str, Any]]:
    """The terms with every parameter, as configurations record them."""
    return [
        {"term": name, **{field.name: getattr(term, field.name) for field in fields(_kind(name))}}
        for name, term in terms
    ]


def _parsed(text: str) -> tuple[str, Term]:
    name, _, rest = text.partition(":")
    if name not in term_names():
        raise UsageRefusal(f"no term is called {name!r}", f"use one of: {', '.join(term_names())}")
    kinds = {field.name: field.type for field in fields(_kind(name))}
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if key not in kinds or not equals:
            nearest = get_close_matches(key, kinds, n=1)
            meant = f"did you mean {nearest[0]}? " if nearest else ""
            raise UsageRefusal(
                f"--term {text}: {pair!r} is no parameter of {name}",
                f"{meant}give NAME:parameter=value,... with {', '.join(kinds)}",
            )
        values[key] = _converted(text, key, value, kinds[key])
    try:
        term: Term = _kind(name)(**values)
    except ValueError as fault:
        raise UsageRefusal(f"--term {text}: {fault}", "give a value in its range") from fault
    return name, term


def _kind(name: str) -> Any:
    """The class of a term, a dataclass whose fields are its parameters."""
    return import_module(f"{__name__}.{name}").TERM


def _converted(text: str, key: str, value: str, kind: Any) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise UsageRefusal(f"--term {text}: {key} is {value!r}", "give true or false")
        return value == "true"
    if kind is not float:
        return value
    try:
        return float(value)
    except ValueError:
        raise UsageRefusal(f"--term {text}: {key} is {value!r}", "give a number") from None
