"""The settings of `train-task` as a sequence file spells them: the names of its flags, with underscores."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pamctl.known_names import refuse_unknown
from pamctl.refusal import UsageRefusal
from pamctl.training.configuration import Settings, check_settings

SPELLED = {"learning_rate": "lr", "terms": "term", "decay": "ema"}
"""Settings whose flag has a name of its own."""
ELSEWHERE = ("method", "seed")
"""Settings that a sequence says by its methods and seeds."""
OF_THE_BASE = ("dtype", "quantize", "fsdp")
"""How the base is held, once for all cells."""
OF_A_TASK = ("epochs", "steps", "batch_size", "weight_decay", "label_smoothing")
LENGTHS = {"steps", "epochs"}
"""How long a training is, said in one of two ways."""
_HINTS = {name: hint for name, hint in get_type_hints(Settings).items() if name not in ELSEWHERE}
SETTINGS: Mapping[str, str] = {SPELLED.get(name, name): name for name in _HINTS}
"""Key in the file -> name in `Settings`."""


def settings_in(table: Mapping[str, Any], place: str, known: Sequence[str] = tuple(SETTINGS)) -> Settings:
    """The settings that a table holds, each of the kind and in the range that the flag has.

    Args:
        place: file and table, for messages.
        known: the keys that this table may have.

    Raises:
        UsageRefusal: a key that is not known here, or a value that its flag would refuse.
    """
    refuse_unknown(table, known, place)
    found = {SETTINGS[key]: _value(SETTINGS[key], value, f"{place}: {key}") for key, value in table.items()}
    settings = cast(Settings, found)
    try:
        check_settings(settings)
    except UsageRefusal as refusal:
        raise UsageRefusal(f"{place}: {refusal.what}", refusal.way_on) from refusal
    return settings


def over(general: Settings, special: Settings) -> Settings:
    """Settings with others put over them; of steps and epochs the more special one counts."""
    said = LENGTHS if any(special.get(name) is not None for name in LENGTHS) else set()
    return cast(Settings, {name: value for name, value in general.items() if name not in said} | special)


def flags(settings: Settings) -> list[str]:
    """The words on a command line that say the same."""
    words: list[str] = []
    for name, value in settings.items():
        flag = "--" + SPELLED.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [word for each in value for word in (flag, str(each))]
        else:
            words += [flag, str(value)]
    return words


def _value(name: str, value: Any, place: str) -> Any:
    kinds = _kinds(_HINTS[name])
    if tuple in kinds:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UsageRefusal(f"{place} is {value!r}", 'give a list of texts, as ["lwf:weight=2"]')
        return tuple(texts)
    if type(value) is int and float in kinds and int not in kinds:
        return float(value) if value != int(value) else value
    if type(value) not in kinds:
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageRefusal(f"{place} is {value!r}", f"give {' or '.join(words[kind] for kind in kinds)}")
    return value


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a value may have; tuple for a list of texts."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) if part is not type(None) for kind in _kinds(part))
    if origin is Literal:
        return (str,)
    return (tuple,) if isinstance(origin, type) and issubclass(origin, Sequence) else (hint,)
