"""flax nnx modules to plain parameter trees and back, so that nothing else needs to know nnx."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
from flax import nnx

Tree = dict[str, Any]
"""Nested dict of arrays."""

Remat = Literal["none", "elementwise", "all"]
"""What of a layer the backward pass computes again: nothing, all but its matrix products, or all."""

PRODUCT = "product"
"""The name under which a projection's results are kept for the backward pass."""

Module = TypeVar("Module", bound=nnx.Module)


def initial_tree(make: Callable[[nnx.Rngs], nnx.Module], key: jax.Array) -> Tree:
    """Return the freshly drawn parameters of the module that `make` builds."""
    return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(params=key))))


def initial_stack(make: Callable[[nnx.Rngs], nnx.Module], key: jax.Array, layers: int) -> Tree:
    """Return the parameters of `layers` such modules, each leaf with a leading axis over them."""
    return jax.vmap(lambda layer_key: initial_tree(make, layer_key))(jax.random.split(key, layers))


def module(make: Callable[[nnx.Rngs], Module], tree: Tree) -> Module:
    """Return the module that `make` builds, holding the parameters of `tree`."""
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0)))), tree)


def computed_again(layer: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Return `layer` for use in a scan, with `remat` of it computed again in the backward pass, not stored.

    Computing the element-wise part and the attention weights again costs less than storing them: half the
    time of a training step on a CPU, and a fraction of the memory anywhere.
    """
    if remat == "none":
        return layer
    keep = jax.checkpoint_policies
    policy = keep.save_only_these_names(PRODUCT) if remat == "elementwise" else keep.nothing_saveable
    return jax.checkpoint(layer, policy=policy, prevent_cse=False)
