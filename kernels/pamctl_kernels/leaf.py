"""What one leaf may be: its floating-point format, where its bits lie, and the threshold it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FloatFormat:
    """A format whose bits, sign cleared and read as an integer, order exactly as the magnitudes do."""

    integer: np.dtype[Any]
    infinity: int

    @property
    def magnitude_mask(self) -> int:
        return int(np.iinfo(self.integer).max)


_FORMATS = {
    "float32": FloatFormat(np.dtype(np.int32), 0x7F800000),
    "float16": FloatFormat(np.dtype(np.int16), 0x7C00),
    "bfloat16": FloatFormat(np.dtype(np.int16), 0x7F80),
}


def format_of(name: str, leaf: Any) -> FloatFormat:
    """The format of `leaf`; TypeError where it is no float32, float16 or bfloat16 array."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        raise TypeError(f"{name} is a {type(leaf).__name__}, not an array")
    form = _format_of_dtype(dtype)
    if form is None:
        raise TypeError(f"{name} has dtype {dtype}: cast it to float32, float16 or bfloat16")
    return form


@lru_cache
def _format_of_dtype(dtype: Any) -> FloatFormat | None:
    """Looked up once a dtype: its name is made anew by numpy each time."""
    return _FORMATS.get(dtype.name) if dtype.isnative else None


def one_dtype(leaves: Sequence[tuple[str, Any]]) -> np.dtype[Any]:
    """The dtype that all leaves share; TypeError where they share none, or have none of the three formats."""
    for name, leaf in leaves:
        format_of(name, leaf)
    dtypes = {leaf.dtype for _, leaf in leaves}
    if len(dtypes) != 1:
        found = ", ".join(sorted(map(str, dtypes))) or "no leaf"
        raise TypeError(f"one threshold needs leaves of one dtype, found {found}")
    return dtypes.pop()


def check_pair(name: str, w: Any, g: Any) -> None:
    """TypeError or ValueError where `w` and `g` are not of one format and one shape."""
    if format_of(name, g) != format_of(name, w) or w.dtype != g.dtype:
        raise TypeError(f"{name} has dtype {w.dtype} in w and {g.dtype} in g: cast one of them")
    if w.shape != g.shape:
        raise ValueError(f"{name} has shape {w.shape} in w and {g.shape} in g")


def check_shape(name: str, leaf: Any, first: Any) -> None:
    """ValueError where `leaf` has another shape than the first."""
    if leaf.shape != first.shape:
        raise ValueError(f"{name} has shapes {first.shape} and {leaf.shape}")


def threshold_for(name: str, threshold: Any, g: Any) -> Any:
    """`threshold` as an array of g's dtype that broadcasts to its shape; a Python number is rounded to it."""
    if isinstance(threshold, int | float):
        return np.asarray(threshold, g.dtype)
    format_of(f"the threshold of {name}", threshold)
    if threshold.dtype != g.dtype:
        raise TypeError(
            f"the threshold of {name} has dtype {threshold.dtype}, g has {g.dtype}: cast one of them"
        )
    try:
        broadcast = np.broadcast_shapes(threshold.shape, g.shape)
    except ValueError:
        broadcast = ()
    if broadcast != g.shape:
        raise ValueError(
            f"the threshold of {name} has shape {threshold.shape}, which does not broadcast to {g.shape}"
        )
    return threshold
