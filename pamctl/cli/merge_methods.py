"""`pamctl merge --list-methods` and `--explain`: what the methods are."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pamctl.merging.methods.method import Method, Parameter

list_option = click.option("--list-methods", is_flag=True, help="List the methods and their parameters.")
explain_option = click.option(
    "--explain", metavar="METHOD", help="Print a method's formula, parameters, units and source."
)


def print_methods(*, as_json: bool) -> None:
    """Print every method, a line each, or with their parameters as one JSON object."""
    from pamctl.cli.output import print_json, print_result
    from pamctl.merging.methods import NAMES, method_named

    methods = [method_named(name) for name in NAMES]
    if as_json:
        print_json("merge-methods", {"methods": [_described(method) for method in methods]})
        return
    width = max(map(len, NAMES))
    print_result("\n".join(f"{method.name:<{width}}  {method.title}" for method in methods))


def print_explanation(name: str, *, as_json: bool) -> None:
    """Print what a method's own file says of it, and its options."""
    from pamctl.cli.output import print_json, print_result
    from pamctl.merging.methods import explanation, method_named

    method, text = method_named(name), explanation(name)
    if as_json:
        print_json("merge-method", {**_described(method), "explanation": text})
        return
    lines = [f"{method.name}: {text}", ""]
    lines += [f"--set {_option(parameter)}  {parameter.meaning}" for parameter in method.parameters]
    if method.variants:
        lines.append(f"--variant {'|'.join(method.variants)}")
    lines.append(f"--space {'|'.join(method.spaces)}")
    print_result("\n".join(lines))


def _described(method: "Method") -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "variants": list(method.variants),
        "spaces": list(method.spaces),
        "weights_are_shares": method.shares,
        "order_matters": not method.symmetric,
        "random": method.random,
        "adapters": {"least": max(method.least, 2), "most": method.most},
        "parameters": [
            {
                "name": parameter.name,
                "meaning": parameter.meaning,
                "default": parameter.default,
                "default_by_variant": dict(parameter.by_variant),
                "least": parameter.least,
                "most": parameter.most,
                "above": parameter.above,
                "choices": list(parameter.choices),
                "per_adapter": parameter.per_adapter,
            }
            for parameter in method.parameters
        ],
    }


def _option(parameter: "Parameter") -> str:
    if parameter.choices:
        return f"{parameter.name}={'|'.join(parameter.choices)}"
    default = "..." if parameter.default is None else str(parameter.default).lower()
    return f"{parameter.name}={default}"
