"""One pass over the inputs before a merge: their fingerprints, and how their factors relate."""

from collections.abc import Sequence

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import Float32, ModuleShape, Part
from pamctl.merging.inputs import Inputs
from pamctl.merging.relation import Relation, cross_term, probed_cross_term
from pamctl.merging.schedule import Schedule

EXACT_OPERATIONS = 2e9
"""Multiplications up to which cross terms are computed and not estimated: a tenth of a second's work."""


def modules_of(adapters: Sequence[Adapter]) -> dict[str, ModuleShape]:
    """Every module that any of the adapters adapts, with the shape that it has in the first of those."""
    found: dict[str, ModuleShape] = {}
    for adapter in reversed(adapters):
        found |= adapter.shapes
    return dict(sorted(found.items()))


def is_exact(adapters: Sequence[Adapter]) -> bool:
    """Whether all cross terms can be computed in a tenth of a second."""
    operations = 0.0
    inputs = Inputs(adapters)
    for module, shape in modules_of(adapters).items():
        operations += float(sum(inputs.ranks(module))) ** 2 * (shape.inputs + shape.outputs)
    return operations <= EXACT_OPERATIONS


def surveyed(
    adapters: Sequence[Adapter], shares: Sequence[float], schedule: Schedule, *, relate: bool
) -> Relation | None:
    """Read every module once; afterwards the fingerprint of each adapter is known and checked.

    Args:
        shares: of the mean, one an adapter.
        relate: compute the cross terms too.

    Raises:
        Refusal: weights that are not those of an adapter's record, or cannot be read.
    """
    inputs, modules, exact = Inputs(adapters), modules_of(adapters), is_exact(adapters)

    def look(module: str) -> Relation:
        shape = modules[module]
        if _bytes(inputs, module, shape) > schedule.most_bytes:
            for place in range(len(adapters)):
                inputs.digest(place, module)
            return probed(inputs, module, shape, shares) if relate else Relation()
        factors = inputs.factors(module, shape)
        if not relate:
            return Relation()
        folded = [each.folded() for each in factors]
        if exact:
            return Relation(*cross_term(folded, shares))

        def read(place: int, part: Part, rows: slice) -> Float32:
            return (folded[place].a if part == "a" else folded[place].b)[rows]

        return Relation(*probed_cross_term(read, shape, inputs.ranks(module), shares))

    found = schedule.ahead(modules, look, lambda module: _bytes(inputs, module, modules[module]))
    relation = sum(found, Relation())
    inputs.check()
    return relation if relate else None


def probed(inputs: Inputs, module: str, shape: ModuleShape, shares: Sequence[float]) -> Relation:
    """The cross terms of one module, estimated."""
    ranks = inputs.ranks(module)
    norms = probed_cross_term(
        lambda place, part, rows: inputs.rows(place, module, part, rows, shape), shape, ranks, shares
    )
    return Relation(*norms)


def _bytes(inputs: Inputs, module: str, shape: ModuleShape) -> int:
    return 8 * sum(inputs.ranks(module)) * (shape.inputs + shape.outputs)
