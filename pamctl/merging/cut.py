"""To which rank a merged delta is cut, by number or by what it keeps, and what that loses."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Svd = Literal["randomized", "full"]


@dataclass(frozen=True)
class Cut:
    """The rank of a result; neither rank nor energy leaves it as it comes out.

    Args:
        rank: the largest.
        energy: keep the smallest rank that holds this share of the squared norm, of each module by itself.
        svd: how a dense delta is decomposed: by a randomized range finder, or in full.
    """

    rank: int | None = None
    energy: float | None = None
    svd: Svd = "randomized"

    @property
    def cuts(self) -> bool:
        return self.rank is not None or self.energy is not None

    def kept(self, energies: Float64, whole: float) -> int:
        """How many of the strongest directions stay, at least 1.

        Args:
            energies: the squares of the singular values, the largest first.
            whole: the squared norm of what they are the directions of.
        """
        count = len(energies)
        if self.energy is not None:
            # rounding must not keep a direction more for a share that is reached exactly
            due = self.energy * whole * (1 - 1e-12)
            count = int(np.searchsorted(np.cumsum(energies), due)) + 1
        if self.rank is not None:
            count = min(count, self.rank)
        return max(1, min(count, len(energies)))


LARGE = 512
"""The rank of a sum from which its core takes longer to decompose than its best directions to find."""


def is_large(rank: int, cut: Cut) -> bool:
    """Whether a sum of this rank is cut by a randomized range finder, unless in full is asked for."""
    return cut.svd == "randomized" and rank > LARGE and cut.rank is not None and 4 * cut.rank <= rank


@dataclass(frozen=True)
class Kept:
    """Squared norms of a module's delta: of what was kept, and of the whole."""

    kept: float
    whole: float
