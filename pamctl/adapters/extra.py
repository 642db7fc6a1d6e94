"""A tensor of an adapter that is no delta, and what it is for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from pamctl.adapters.tensor_file import DTYPES

ExtraRole = Literal["module", "embedding", "bias", "lora_bias"]


@dataclass(frozen=True, eq=False)
class Extra:
    """A tensor that is no delta. It passes through unchanged, in the dtype it has at rest.

    Args:
        role: `module`, the full weight of a module in place of the base's; `embedding`, the same of a resized
            embedding, for which the base has to be resized; `bias`, a bias of the base as trained;
            `lora_bias`, which is added to a module's output and has the scale folded in.
        read: gives the tensor, in its dtype.
    """

    role: ExtraRole
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize
