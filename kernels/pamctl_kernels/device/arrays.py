"""Jax arrays as the kernels see them: their bits and magnitudes, sums that fuse, leaves that are checked."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pamctl_kernels.leaf import check_pair, format_of, threshold_for


def bits_of(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, format_of("x", x).integer).astype(jnp.int32)


def magnitude_of(x: jax.Array) -> jax.Array:
    """The bits of |x|: of the bits with either sign, those that read as the greater integer.

    Not `bits & mask`, which LLVM, where it is compared with zero, turns into a comparison of floats, blind to
    subnormals on a CPU that flushes them.
    """
    return jnp.maximum(bits_of(x), bits_of(x) ^ ~format_of("x", x).magnitude_mask)


def is_nan(x: jax.Array) -> jax.Array:
    return magnitude_of(x) > format_of("x", x).infinity


def rounded_product(x: jax.Array, share: jax.Array) -> jax.Array:
    """x * share, rounded before anything is added to it.

    Compilers contract a product and a sum into one operation, which rounds once where numpy rounds twice.
    The integer operation between the two stops that; it changes nothing but the payload of a NaN.
    """
    product = x * share
    return lax.bitcast_convert_type(bits_of(product) | is_nan(product).astype(jnp.int32), jnp.float32)


def _add_each(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
    return [x + y for x, y in zip(a, b, strict=True)]


def sum_together(*terms: jax.Array, axes: Sequence[int]) -> tuple[jax.Array, ...]:
    """The int32 sums of several arrays of one shape over `axes`, in one pass.

    XLA fuses a reduction of several operands with what computes them; on a CPU it writes out the operand of a
    single one first (tree_reduction_rewriter), which is ten times slower.
    """
    shape = np.broadcast_shapes(*(term.shape for term in terms))
    operands = [jnp.broadcast_to(term, shape).astype(jnp.int32) for term in terms]
    zeros = [jnp.int32(0)] * len(operands)
    return tuple(lax.reduce(operands, zeros, _add_each, tuple(axes)))


def on_device(value: Any) -> jax.Array:
    """`value` as a traced argument, so that another value compiles nothing, moved as transfer guards ask."""
    return value if isinstance(value, jax.Array) else jax.device_put(value)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path) or "the array", leaf) for path, leaf in paths]


def count_elements(leaves: Sequence[tuple[str, Any]]) -> int:
    n = sum(leaf.size for _, leaf in leaves)
    if n >= 2**31:
        raise ValueError(f"{n} weights in one call: counts are int32, so give fewer than 2^31")
    return n


def checked_thresholds(w: Any, g: Any, threshold: Any) -> Any:
    """`threshold` as a tree like `w`, every leaf of it fit for its leaf of `g`."""
    structure: Any = jax.tree.structure(w)
    if jax.tree_util.all_leaves([threshold]):
        threshold = jax.tree.unflatten(structure, [threshold] * structure.num_leaves)
    named, thresholds = named_leaves(w), []
    leaves = zip(named, structure.flatten_up_to(g), structure.flatten_up_to(threshold), strict=True)
    for (name, leaf), like, limit in leaves:
        check_pair(name, leaf, like)
        thresholds.append(on_device(threshold_for(name, limit, like)))
    count_elements(named)
    return jax.tree.unflatten(structure, thresholds)


def refuse_output(out: Any) -> None:
    """ValueError where a device's result should go to given memory."""
    if out is not None:
        raise ValueError("out is for host arrays: donate an argument of the jitted caller instead")
