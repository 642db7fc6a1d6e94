"""The parameters of a method as given, checked and completed with its defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import Method, Parameter, Projected, Settings
from pamctl.merging.shares import LARGEST
from pamctl.refusal import UsageRefusal


def resolved(method: Method, variant: str | None, given: Mapping[str, Any], adapters: int) -> Settings:
    """Every parameter of the method with its value, and its variant where it has variants.

    Args:
        variant: None for the first.
        given: parameters by name; those of an inner method too where there is one.
        adapters: how many inputs there are: a parameter given per adapter becomes so many numbers.

    Raises:
        UsageRefusal: no such variant or parameter, or a value that it cannot have.
    """
    parameters = _parameters(method, given)
    inner = _inner(method, given)
    described = inner or method
    if variant is not None and variant not in described.variants:
        offered = f"it has {', '.join(described.variants)}" if described.variants else "it has none"
        raise UsageRefusal(
            f"{described.name} has no variant {variant!r}", f"{offered}: leave --variant out or choose"
        )
    chosen = variant or (described.variants[0] if described.variants else None)
    for name in given:
        if name not in parameters:
            offered = ", ".join(parameters) or "none"
            raise UsageRefusal(f"{method.name} has no parameter {name!r}", f"its parameters are: {offered}")
    settings: dict[str, Any] = {} if chosen is None else {"variant": chosen}
    for name, parameter in parameters.items():
        value = given.get(name, parameter.default_of(chosen))
        if name == "scope" and name not in given and isinstance(method.work, Projected) and method.work.scope:
            value = method.work.scope
        settings[name] = _checked(method.name, parameter, value, adapters)
    return settings


def parameters_of(method: Method, inner: str | None = None) -> dict[str, Parameter]:
    """The parameters by name, with those of the method inside where there is one."""
    return _parameters(method, {} if inner is None else {"inner": inner})


def _parameters(method: Method, given: Mapping[str, Any]) -> dict[str, Parameter]:
    found = {parameter.name: parameter for parameter in method.parameters}
    inner = _inner(method, given)
    return {**found, **{parameter.name: parameter for parameter in inner.parameters}} if inner else found


def _inner(method: Method, given: Mapping[str, Any]) -> Method | None:
    if not isinstance(method.work, Projected):
        return None
    (choice,) = (parameter for parameter in method.parameters if parameter.name == "inner")
    return method_named(_checked(method.name, choice, given.get("inner", choice.default), 1))


def _checked(method: str, parameter: Parameter, value: Any, adapters: int) -> Any:
    if parameter.per_adapter:
        values = (
            list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * adapters
        )
        if len(values) != adapters:
            raise UsageRefusal(
                f"{parameter.name} of {method} is given {len(values)} times for {adapters} adapters",
                "give one number for all, or one an adapter",
            )
        return tuple(_one(method, parameter, each) for each in values)
    return _one(method, parameter, value)


def _one(method: str, parameter: Parameter, value: Any) -> Any:
    if value is None and parameter.default is None:
        return None
    wanted = _wanted(parameter)
    fault = UsageRefusal(f"{parameter.name} of {method} is {value!r}", f"give {wanted}")
    if isinstance(parameter.default, bool):
        if not isinstance(value, bool):
            raise fault
        return value
    if parameter.choices:
        if value not in parameter.choices:
            raise fault
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise fault
    low = parameter.least is None or value >= parameter.least
    high = parameter.most is None or value <= parameter.most
    above = parameter.above is None or value > parameter.above
    if not (low and high and above) or (parameter.whole and value != int(value)):
        raise fault
    return int(value) if parameter.whole else float(value)


def _wanted(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool):
        return "true or false"
    if parameter.choices:
        return f"one of {', '.join(parameter.choices)}"
    bounds = [
        f"more than {parameter.above:g}" if parameter.above is not None else "",
        f"at least {parameter.least:g}" if parameter.least is not None else "",
        f"at most {parameter.most:g}" if parameter.most is not None else "",
    ]
    kind = "a whole number" if parameter.whole else "a number"
    return " ".join([kind, *(" and ".join(filter(None, bounds)).split())])
