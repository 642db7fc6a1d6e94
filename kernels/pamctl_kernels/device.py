"""The kernels on jax arrays: jitted, exact by integer arithmetic on the bits, which flush no subnormals."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pamctl_kernels.leaf import check_pair, format_of, one_dtype, threshold_for
from pamctl_kernels.top_p import important_count

_DIGIT = 3  # bits of the answer found per pass: seven counts in one read still run at memory speed


def magnitude_threshold(x: Any, top_p: object) -> jax.Array:
    leaves = _named_leaves(x)
    one_dtype(leaves)
    n = _count_elements(leaves)
    return _kth_largest([leaf for _, leaf in leaves], _on_device(np.int32(important_count(top_p, n))))


@jax.jit
def _kth_largest(x: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """Fix the bits of the answer from the top, a digit a pass; NaN if any leaf holds one, +inf for k = 0."""
    form = format_of("x", x[0])
    width = form.magnitude_mask.bit_length()

    def fix_digit(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Tied to the state, the magnitudes are no invariant that XLA would store outside the loop.
        leaves, (prefix, _) = lax.optimization_barrier((x, state))
        # The last digit may be narrower: its surplus candidates lie past every answer and count as missed.
        shift = jnp.maximum(width - _DIGIT * (i + 1), 0)
        candidates = [prefix + (digit << shift) for digit in range(1, 1 << _DIGIT)]
        *reached, nans = _count_at_least(leaves, [*candidates, jnp.int32(form.infinity + 1)])
        digit = sum((count >= k).astype(jnp.int32) for count in reached)
        return prefix + (digit << shift), nans

    passes = -(-width // _DIGIT)
    bits, nans = lax.fori_loop(jnp.int32(0), jnp.int32(passes), fix_digit, (jnp.int32(0), jnp.int32(0)))
    bits = jnp.where(k > 0, bits, form.infinity)
    bits = jnp.where(nans > 0, form.magnitude_mask, bits)
    return lax.bitcast_convert_type(bits.astype(form.integer), x[0].dtype)


def _count_at_least(leaves: Sequence[jax.Array], candidates: Sequence[jax.Array]) -> list[jax.Array]:
    """For each candidate (bits), how many magnitudes of all leaves reach it, in one read."""
    totals = [jnp.int32(0)] * len(candidates)
    for leaf in leaves:
        magnitude = _magnitude(leaf)
        counts = _sum_together(*(magnitude >= candidate for candidate in candidates), axes=range(leaf.ndim))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return totals


def sign_conflicts(w: Any, g: Any, threshold: Any) -> Any:
    return _sign_conflicts(w, g, _checked_thresholds(w, g, threshold))


@jax.jit
def _sign_conflicts(w: Any, g: Any, thresholds: Any) -> Any:
    return jax.tree.map(_conflict, w, g, thresholds)


def realign(w: Any, g: Any, threshold: Any, reinit: str, per_layer: bool) -> tuple[Any, Any]:
    return _realign(w, g, _checked_thresholds(w, g, threshold), reinit=reinit, per_layer=per_layer)


@partial(jax.jit, static_argnames=("reinit", "per_layer"))
def _realign(w: Any, g: Any, thresholds: Any, *, reinit: str, per_layer: bool) -> tuple[Any, Any]:
    conflicts = jax.tree.map(_conflict, w, g, thresholds)
    aligned = jax.tree.map(lambda c, w, g: jnp.where(c, g if reinit == "global" else 0, w), conflicts, w, g)

    def count(conflict: jax.Array, w: jax.Array, g: jax.Array, threshold: jax.Array) -> jax.Array:
        nan = _is_nan(w) | _is_nan(g) | _is_nan(threshold)
        return jnp.stack(_sum_together(conflict, nan, axes=range(1 if per_layer else 0, w.ndim)))

    counts = jax.tree.map(count, conflicts, w, g, thresholds)
    if not per_layer:
        counts = sum(jax.tree.leaves(counts), jnp.zeros(2, jnp.int32))
    return aligned, jax.tree.map(lambda pair: jnp.where(pair[1] > 0, -1, pair[0]), counts)


def weighted_average(xs: Sequence[Any], weights: Any) -> Any:
    first = _named_leaves(xs[0])
    for x in xs:
        for (name, leaf), (_, like) in zip(_named_leaves(x), first, strict=True):
            format_of(name, leaf)
            if leaf.shape != like.shape:
                raise ValueError(f"{name} has shapes {like.shape} and {leaf.shape}")
    if not isinstance(weights, jax.Array):
        weights = _on_device(np.asarray(weights, np.float32))
    return _weighted_average(list(xs), weights)


@jax.jit
def _weighted_average(xs: Sequence[Any], weights: jax.Array) -> Any:
    shares = list(weights.astype(jnp.float32))
    idempotent = sum(shares) == 1

    def average_leaf(*leaves: jax.Array) -> jax.Array:
        first, *others = (leaf.astype(jnp.float32) for leaf in leaves)
        total = _rounded_product(first, shares[0])
        same = jnp.full(first.shape, idempotent)
        for other, share in zip(others, shares[1:], strict=True):
            same &= _bits(first) == _bits(other)
            total += _rounded_product(other, share)
        return jnp.where(same, leaves[0], total.astype(leaves[0].dtype))

    return jax.tree.map(average_leaf, *xs)


def _rounded_product(x: jax.Array, share: jax.Array) -> jax.Array:
    """x * share, rounded before anything is added to it.

    Compilers contract a product and a sum into one operation, which rounds once where numpy rounds twice.
    The integer operation between the two stops that; it changes nothing but the payload of a NaN.
    """
    product = x * share
    return lax.bitcast_convert_type(_bits(product) | _is_nan(product).astype(jnp.int32), jnp.float32)


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, format_of("x", x).integer).astype(jnp.int32)


def _magnitude(x: jax.Array) -> jax.Array:
    """The bits of |x|: of the bits with either sign, those that read as the greater integer.

    Not `bits & mask`, which LLVM, where it is compared with zero, turns into a comparison of floats, blind to
    subnormals on a CPU that flushes them.
    """
    return jnp.maximum(_bits(x), _bits(x) ^ ~format_of("x", x).magnitude_mask)


def _is_nan(x: jax.Array) -> jax.Array:
    return _magnitude(x) > format_of("x", x).infinity


def _conflict(w: jax.Array, g: jax.Array, threshold: jax.Array) -> jax.Array:
    """Where |g| >= threshold, g != 0 and the signs differ; a NaN threshold exceeds everything."""
    mask = format_of("g", g).magnitude_mask
    limit = jnp.maximum(_bits(threshold), 1)  # 1: the smallest g that is not zero
    # w with the sign of g taken off: a positive integer where, and only where, w has that sign.
    return (_magnitude(g) >= limit) & ((_bits(w) ^ (_bits(g) & ~mask)) <= 0)


def _add_each(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _sum_together(*terms: jax.Array, axes: Sequence[int]) -> tuple[jax.Array, ...]:
    """The int32 sums of several arrays of one shape over `axes`, in one pass.

    XLA fuses a reduction of several operands with what computes them; on a CPU it writes out the operand of a
    single one first (tree_reduction_rewriter), which is ten times slower.
    """
    shape = np.broadcast_shapes(*(term.shape for term in terms))
    operands = [jnp.broadcast_to(term, shape).astype(jnp.int32) for term in terms]
    zeros = [jnp.int32(0)] * len(operands)
    return tuple(lax.reduce(operands, zeros, _add_each, tuple(axes)))


def _on_device(value: Any) -> jax.Array:
    """`value` as a traced argument, so that another value compiles nothing, moved as transfer guards ask."""
    return value if isinstance(value, jax.Array) else jax.device_put(value)


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path) or "the array", leaf) for path, leaf in paths]


def _count_elements(leaves: Sequence[tuple[str, Any]]) -> int:
    n = sum(leaf.size for _, leaf in leaves)
    if n >= 2**31:
        raise ValueError(f"{n} weights in one call: counts are int32, so give fewer than 2^31")
    return n


def _checked_thresholds(w: Any, g: Any, threshold: Any) -> Any:
    """`threshold` as a tree like `w`, every leaf of it fit for its leaf of `g`."""
    structure: Any = jax.tree.structure(w)
    if jax.tree_util.all_leaves([threshold]):
        threshold = jax.tree.unflatten(structure, [threshold] * structure.num_leaves)
    named, thresholds = _named_leaves(w), []
    leaves = zip(named, structure.flatten_up_to(g), structure.flatten_up_to(threshold), strict=True)
    for (name, leaf), like, limit in leaves:
        check_pair(name, leaf, like)
        thresholds.append(_on_device(threshold_for(name, limit, like)))
    _count_elements(named)
    return jax.tree.unflatten(structure, thresholds)
