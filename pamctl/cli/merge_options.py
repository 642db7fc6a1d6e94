"""The options of `pamctl merge` that make up its recipe, and the recipe that they and a file come to."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pamctl.merging.recipe import Recipe


class _Weights(click.ParamType):
    name = "W,W,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(float(weight) for weight in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, as 0.7,0.3", param, ctx)


class _Rank(click.ParamType):
    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "max" else click.IntRange(min=1).convert(value, param, ctx)


class _Setting(click.ParamType):
    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        name, _, text = value.partition("=")
        if not name or not text:
            self.fail(f"{value!r} is not a name and a value, as lambda=0.7", param, ctx)
        return name, [_value(part) for part in text.split(",")] if "," in text else _value(text)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_OPTIONS = (
    click.option("--method", metavar="NAME", help="How to merge: see --list-methods. [default: average]"),
    click.option("--variant", metavar="NAME", help="Whose definition of it: paper, peft or mergekit."),
    click.option("--weights", type=_Weights(), help="One weight an adapter. [default: equal]"),
    click.option(
        "--space",
        type=click.Choice(["auto", "factor", "delta"]),
        help="Merge A and B apart, or their product. [default: auto]",
    ),
    click.option(
        "--rank",
        type=_Rank(),
        help="Of the result; max: the inputs' largest. [default: exact; max where a delta is dense]",
    ),
    click.option(
        "--energy",
        type=float,
        metavar="SHARE",
        help="Keep the smallest rank with this share of each delta's energy, as 0.99.",
    ),
    click.option(
        "--svd",
        type=click.Choice(["randomized", "full"]),
        help="How dense deltas are decomposed. [default: randomized, its error measured]",
    ),
    click.option("--density", type=float, metavar="SHARE", help="The same as --set density=SHARE."),
    click.option(
        "--set",
        "parameters",
        type=_Setting(),
        multiple=True,
        help="A parameter of the method, see --explain; one number an adapter with commas between them.",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Of random methods. [default: 0]"),
    click.option(
        "--full-modules",
        type=click.Choice(["refuse", "first", "mean"]),
        help="What full tensors (modules_to_save, embeddings, biases) become where they differ. "
        "[default: refuse]",
    ),
    click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Take all of this, and rules for some modules, from a TOML file; options override it.",
    ),
    click.option(
        "--from-lock",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Do a merge again from the pamctl.json of its result, and see that it comes out the same.",
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to merge."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_for(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line says of the recipe, by the recipe's own names."""
    said = {name: value for name, value in options.items() if name not in ("density", "parameters")}
    parameters = dict(options["parameters"])
    if options["density"] is not None:
        parameters["density"] = options["density"]
    return {name: value for name, value in said.items() if value is not None} | (
        {"parameters": parameters} if parameters else {}
    )


def overridden(recipe: "Recipe", asked: Mapping[str, Any]) -> "Recipe":
    """A recipe with what the command line says in place of its own.

    Parameters of another method than the recipe's do not carry over.
    """
    another = asked.get("method", recipe.method) != recipe.method
    parameters = {**({} if another else recipe.parameters), **asked.get("parameters", {})}
    known = {each.name for each in fields(recipe)}
    said = {name: value for name, value in asked.items() if name in known}
    if another:
        said.setdefault("variant", None)
    return replace(recipe, **{**said, "parameters": parameters})


@contextmanager
def blamed_on(recipe_file: Path | None) -> Iterator[None]:
    """Name the recipe's file in what is refused as a wrong call; None where an option may be to blame."""
    from pamctl.refusal import UsageRefusal

    try:
        yield
    except UsageRefusal as refusal:
        if recipe_file is None:
            raise
        raise UsageRefusal(f"{recipe_file}: {refusal.what}", refusal.way_on) from refusal
