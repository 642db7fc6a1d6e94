"""The base's matrices in four bits, and back to numbers where a layer is computed (Dettmers et al., 2023)."""

from typing import Any

import jax

from pamctl.refusal import UsageRefusal

QUANTIZATIONS = ("nf4",)
LARGEST_BLOCK = 64


def quantized(array: jax.Array, qtype: str = "nf4") -> Any:
    """Return a parameter as it is kept: matrices of the layers quantised, everything else as it is.

    Up to 64 neighbours along a matrix's inputs share a scale, their largest magnitude: as many as divide its
    inputs. Embeddings, norms, biases and the projector stay as they are, as in QLoRA.

    Args:
        array: (layers, out, in) for a matrix; nothing else has three axes.

    Returns:
        A `qwix.QArray`, whose scales have the dtype of `array`, or `array`.

    Raises:
        UsageRefusal: qwix is not installed, or it has no such type here.
    """
    if qtype not in QUANTIZATIONS:
        raise UsageRefusal(f"a base cannot be quantised to {qtype!r}", f"use {' or '.join(QUANTIZATIONS)}")
    if array.ndim != 3:
        return array
    try:
        import qwix  # type: ignore[import-untyped]
    except ImportError:
        raise UsageRefusal(
            "--quantize needs qwix, which is not installed", "pip install 'pamctl[qlora]', or leave it out"
        ) from None
    block = max(size for size in range(1, LARGEST_BLOCK + 1) if array.shape[-1] % size == 0)

    @jax.jit
    def layers_quantized(layers: jax.Array) -> Any:
        # One layer after the other: the search for the nearest of 16 values takes 16 times a layer's memory.
        return jax.lax.map(
            lambda one: qwix.quantize(one, qtype, channelwise_axes=[0], tiled_axes={1: block}), layers
        )

    return layers_quantized(array)


def numbers_of(weight: Any) -> jax.Array:
    """Return a matrix in the dtype it had before it was quantised, if it was."""
    if isinstance(weight, jax.Array):
        return weight
    import qwix

    whole: jax.Array = qwix.dequantize(weight)
    return whole
