"""The inputs of a merge, read module by module and checked against their fingerprints in passing."""

from collections.abc import Sequence

import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import Float32, LoraFactors, ModuleShape, Part
from pamctl.adapters.fingerprint import module_digest


class Inputs:
    """Adapters under common ids, and what has been seen of their weights.

    Args:
        adapters: in the order in which they are merged.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.adapters = tuple(adapters)
        self._digests: dict[int, dict[str, bytes]] = {
            i: {} for i, adapter in enumerate(adapters) if not adapter.is_checked
        }

    def factors(self, module: str, shape: ModuleShape) -> list[LoraFactors]:
        """The module of each input, as it is scaled at rest; of rank 0 where an input does not have it."""
        found = []
        for i, adapter in enumerate(self.adapters):
            if module not in adapter.shapes:
                found.append(_absent(shape))
                continue
            factors = adapter.modules[module]
            if module not in self._digests.get(i, {module: b""}):
                self._digests[i][module] = module_digest(factors)
            found.append(factors)
        return found

    def rows(self, place: int, module: str, part: Part, rows: slice, shape: ModuleShape) -> Float32:
        """Some rows of a factor, the scale folded into b; these are not looked at for the fingerprint."""
        adapter = self.adapters[place]
        if module in adapter.shapes:
            return adapter.modules.rows(module, part, rows)
        absent = _absent(shape)
        return (absent.a if part == "a" else absent.b)[rows]

    def ranks(self, module: str) -> list[int]:
        """The rank of each input's module, 0 where it has none."""
        return [adapter.shapes[module].rank if module in adapter.shapes else 0 for adapter in self.adapters]

    def digest(self, place: int, module: str) -> None:
        """Look at a module of one input for its fingerprint, and keep nothing of it."""
        adapter = self.adapters[place]
        if place in self._digests and module in adapter.shapes:
            self._digests[place][module] = module_digest(adapter.modules[module])

    def check(self) -> None:
        """Compare with the fingerprint of its record each input of which every module has been seen.

        Raises:
            Refusal: the weights are not those that the record describes.
        """
        for i, digests in list(self._digests.items()):
            if digests.keys() == self.adapters[i].shapes.keys():
                self.adapters[i].fingerprint_of(digests)
                del self._digests[i]


def _absent(shape: ModuleShape) -> LoraFactors:
    a, b = np.zeros((0, shape.inputs), np.float32), np.zeros((shape.outputs, 0), np.float32)
    return LoraFactors(a, b, layer=shape.layer)
