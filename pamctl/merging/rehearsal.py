"""A method tried on next to nothing, so that what it refuses is refused before adapters are read."""

import numpy as np

from pamctl.merging.group import Group
from pamctl.merging.methods.method import Projected, Spectral
from pamctl.merging.random_numbers import Draws
from pamctl.merging.tensors import Tensors, measured, merged_piece, stream_of
from pamctl.refusal import UsageRefusal


def rehearse(group: Group) -> None:
    """Merge ones by the group's method, with its weights and settings.

    Raises:
        UsageRefusal: what the method says of them.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            _merge_ones(group)
    except ValueError as fault:
        listed = ",".join(f"{weight:g}" for weight in group.weights)
        raise UsageRefusal(
            f"{group.method.name} cannot reckon with the weights {listed}: {fault}", "give smaller numbers"
        ) from fault


def _merge_ones(group: Group) -> None:
    weights, count = np.asarray(group.weights), len(group.weights)
    work = group.acting.work
    if isinstance(work, Spectral):
        work.merge([np.ones((1, 1))] * count, weights, group.settings, (1, 1))
        return
    assert not isinstance(work, Projected)
    ones = np.ones((2, 3), np.float32)
    draws = [Draws(0, "", str(place)) for place in range(count)]
    tensors = Tensors(ones.shape, lambda rows: [ones[rows]] * count, draws)
    known = measured(work, stream_of(tensors), weights, group.settings)
    for _, piece in tensors.pieces():
        merged_piece(work, piece, weights, group.settings, known)
