"""What a merge is asked to do: method, weights, space and rank, for all modules or by rules for some."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pamctl.adapters.tensor_file import LARGEST_SETTINGS, shown
from pamctl.merging.cut import Svd
from pamctl.merging.extras import FullModules
from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import Space
from pamctl.refusal import UsageRefusal

Rank = int | Literal["max"]
"""A number, or the largest rank that an input has in the module."""

FILE_NAME = "recipe.toml"
"""What the resolved recipe is called in the folder of a merged adapter."""


@dataclass(frozen=True)
class Rule:
    """What is different for some modules; what it leaves open is as for the others.

    Args:
        modules: patterns of module ids, as `vision_tower.*`.
        parameters: of the method; where the rule names another method, those of the others do not carry over.
    """

    modules: tuple[str, ...]
    method: str | None = None
    variant: str | None = None
    weights: tuple[float, ...] | None = None
    space: Space | Literal["auto"] | None = None
    rank: Rank | None = None
    energy: float | None = None
    svd: Svd | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A merge, less its inputs.

    Args:
        weights: one an input; None gives each the same.
        space: `auto` decides, see `plan_merge`.
        rank: of the result; None leaves an exact result as it is and cuts a dense one to the inputs' rank.
        energy: keep the smallest rank with this share of each module's energy, 0 to 1.
        svd: how a dense delta is decomposed.
        parameters: of the method, by name.
        seed: of the random methods.
        full_modules: what becomes of tensors that are no deltas.
        rules: the first whose patterns match a module counts.
    """

    method: str = "average"
    variant: str | None = None
    weights: tuple[float, ...] | None = None
    space: Space | Literal["auto"] = "auto"
    rank: Rank | None = None
    energy: float | None = None
    svd: Svd = "randomized"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    full_modules: FullModules = "refuse"
    rules: tuple[Rule, ...] = ()

    def for_rule(self, rule: Rule) -> Self:
        """The recipe of the modules that a rule is for."""
        same = rule.method in (None, self.method) and rule.variant in (None, self.variant)
        kept = self.parameters if same else {}
        said = {name: getattr(rule, name) for name in _SHARED if getattr(rule, name) is not None}
        if rule.method is not None and rule.method != self.method:
            said.setdefault("variant", None)
        return type(self)(
            **{
                **{each.name: getattr(self, each.name) for each in fields(self)},
                **said,
                "parameters": {**kept, **rule.parameters},
                "rules": (),
            }
        )

    def to_table(self) -> dict[str, Any]:
        """The recipe as a table of TOML or JSON; parameters stand beside what every method has."""
        return {**_table(self), "rules": [_table(rule) for rule in self.rules]}


_SHARED = ("method", "variant", "weights", "space", "rank", "energy", "svd")
_KINDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "variant": (str,),
    "weights": (list,),
    "space": (str,),
    "rank": (int, str),
    "energy": (int, float),
    "svd": (str,),
    "seed": (int,),
    "full_modules": (str,),
}


@dataclass(frozen=True)
class RecipeFile:
    """What a recipe's file holds.

    Args:
        adapters: the inputs that it names, none where the command does.
        output: the format, dtype and such of the output, as options are called.
    """

    recipe: Recipe
    adapters: tuple[str, ...] = ()
    output: Mapping[str, Any] = field(default_factory=dict)


def read_recipe(file: Path) -> RecipeFile:
    """A recipe in TOML.

    Raises:
        UsageRefusal: no such file, not TOML, or a name or value that a recipe does not have.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(LARGEST_SETTINGS + 1)
    except OSError as fault:
        raise UsageRefusal(
            f"{file}: {fault.strerror}", "give a recipe's file, as README shows one"
        ) from fault
    try:
        if len(text) > LARGEST_SETTINGS:
            raise ValueError("it is too large for a recipe")
        table = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as fault:
        raise UsageRefusal(f"{file} is not TOML: {fault}", "correct it") from fault
    return recipe_of(table, str(file))


def recipe_of(table: Mapping[str, Any], place: str) -> RecipeFile:
    """The recipe that a table holds; errors as for `read_recipe`. `place` is for messages."""
    table = dict(table)
    rules = table.pop("rules", [])
    adapters = table.pop("adapters", [])
    output = table.pop("output", {})
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise UsageRefusal(f"{place}: rules are not tables", "write each as [[rules]]")
    if not isinstance(adapters, list) or not all(isinstance(adapter, str) for adapter in adapters):
        raise UsageRefusal(
            f"{place}: adapters is not a list of texts", "name folders, files or hf:// references"
        )
    if not isinstance(output, Mapping):
        raise UsageRefusal(f"{place}: output is not a table", "write it as [output]")
    known, parameters = _taken_apart(table, (*_SHARED, "seed", "full_modules"), place)
    return RecipeFile(
        Recipe(**known, parameters=parameters, rules=tuple(_rule(rule, place) for rule in rules)),
        tuple(adapters),
        dict(output),
    )


def _rule(table: Mapping[str, Any], place: str) -> Rule:
    table = dict(table)
    said = table.pop("modules", None)
    patterns = [said] if isinstance(said, str) else said
    if not isinstance(patterns, list) or not patterns or not all(isinstance(one, str) for one in patterns):
        raise UsageRefusal(
            f"{place}: a rule's modules are {shown(said)}",
            'give patterns, as "vision_tower.*"',
        )
    known, parameters = _taken_apart(table, _SHARED, place)
    return Rule(tuple(patterns), **known, parameters=parameters)


def _taken_apart(
    table: Mapping[str, Any], names: Sequence[str], place: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every method has, checked for its kind, and the rest: parameters."""
    known: dict[str, Any] = {}
    for name in names:
        if table.get(name) is None:
            continue
        value = table[name]
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise UsageRefusal(f"{place}: {name} is {shown(value)}", "see the recipe in README")
        known[name] = _numbers(value, name, place) if name == "weights" else value
    return known, {name: value for name, value in table.items() if name not in names}


def _numbers(values: Any, name: str, place: str) -> tuple[float, ...]:
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise UsageRefusal(f"{place}: {name} are not all numbers", "give one number an adapter")
    try:
        return tuple(float(value) for value in values)
    except OverflowError as fault:
        raise UsageRefusal(f"{place}: {name} are too large", "give smaller numbers") from fault


def _table(part: Recipe | Rule) -> dict[str, Any]:
    names = [each.name for each in fields(part) if each.name not in ("parameters", "rules")]
    said = {name: getattr(part, name) for name in names if getattr(part, name) is not None}
    return {name: _plain(value) for name, value in {**said, **part.parameters}.items() if value is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def recipe_text(recipe: Recipe, output: Mapping[str, Any]) -> str:
    """The recipe in TOML, as `read_recipe` reads it.

    Args:
        output: how the result is written, where that was chosen.
    """
    import tomli_w

    table = {name: value for name, value in recipe.to_table().items() if value != []}
    return tomli_w.dumps(table | ({"output": dict(sorted(output.items()))} if output else {}))


def refuse_bad_options(recipe: Recipe) -> None:
    """Refuse what no method could do, whatever the inputs.

    Raises:
        UsageRefusal: an option that is out of its range.
    """
    parts: list[Recipe | Rule] = [recipe, *recipe.rules]
    for part in parts:
        if part.method is not None:
            method_named(part.method)
        offered: dict[str, tuple[str, ...]] = {"space": ("auto", *get_args(Space)), "svd": get_args(Svd)}
        for name, choices in offered.items():
            value = getattr(part, name)
            if value is not None and value not in choices:
                raise UsageRefusal(f"{name} is {value!r}", f"choose one of {', '.join(choices)}")
        if (
            part.rank is not None
            and part.rank != "max"
            and not (isinstance(part.rank, int) and part.rank >= 1)
        ):
            raise UsageRefusal(f"rank is {part.rank!r}", "give a rank of at least 1, or max")
        if part.energy is not None and not 0 < part.energy <= 1:
            raise UsageRefusal(
                f"energy is {part.energy!r}", "give the share to keep, more than 0 and at most 1"
            )
    if recipe.full_modules not in get_args(FullModules):
        raise UsageRefusal(
            f"full_modules is {recipe.full_modules!r}", f"choose one of {', '.join(get_args(FullModules))}"
        )
    if not 0 <= recipe.seed < 2**63:
        raise UsageRefusal(f"seed is {recipe.seed}", "give a whole number of at least 0")
