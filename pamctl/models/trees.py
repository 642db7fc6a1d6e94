"""flax nnx modules to plain parameter trees and back, so that nothing else needs to know nnx."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
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


def over_layers(
    layer: Callable[[Any, Any], Any], carried: Any, stacked: Any, remat: Remat = "elementwise"
) -> Any:
    """Return what the layers, one after the other, make of `carried`.

    Computing the element-wise part and the attention weights again costs less than storing them: half the
    time of a training step on a CPU, and a fraction of the memory anywhere.

    Args:
        layer: maps what is carried, and one layer's part of `stacked`.
        stacked: leaves with a first axis over layers. bfloat16 ones are constants: they have no gradient.
        remat: what of each layer the backward pass computes again.
    """

    def step(carried: Any, part: Any) -> tuple[Any, None]:
        return layer(carried, _as_numbers(part)), None

    keep = jax.checkpoint_policies
    if remat != "none":
        policy = keep.save_only_these_names(PRODUCT) if remat == "elementwise" else keep.nothing_saveable
        step = jax.checkpoint(step, policy=policy, prevent_cse=False)
    return jax.lax.scan(step, carried, _as_bits(stacked))[0]


def _as_bits(tree: Any) -> Any:
    """bfloat16 as integers, of which a CPU takes one layer; numbers it would first turn all into float32."""
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(
        lambda leaf: jax.lax.bitcast_convert_type(leaf, jnp.uint16) if leaf.dtype == jnp.bfloat16 else leaf,
        tree,
    )


def _as_numbers(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.lax.bitcast_convert_type(leaf, jnp.bfloat16) if leaf.dtype == jnp.uint16 else leaf,
        tree,
    )
