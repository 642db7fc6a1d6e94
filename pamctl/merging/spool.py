"""Modules computed once and kept on disk until they are written, where their shapes hang on their numbers."""

import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import IO

import numpy as np

from pamctl.adapters.factors import ComputedModules, LoraFactors, ModuleShape


def spooled(modules: ComputedModules) -> ComputedModules:
    """The same modules with the ranks that they turn out to have.

    They lie in a file without a name, which is gone when it is no longer used, however that comes about.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the modules
    shapes: dict[str, ModuleShape] = {}
    places: dict[str, int] = {}

    def read(module: str) -> LoraFactors:
        return _read(file, places, shapes, module)

    weakref.finalize(read, file.close)
    for module, part, values in modules.blocks(list(modules)):
        places.setdefault(module, file.tell())
        if part == "a":
            rank = shapes[module].rank if module in shapes else 0
            shapes[module] = replace(modules.shapes[module], rank=rank + len(values))
        file.write(np.ascontiguousarray(values).data)
    return ComputedModules(shapes, read)


def _read(
    file: IO[bytes], places: Mapping[str, int], shapes: Mapping[str, ModuleShape], module: str
) -> LoraFactors:
    shape = shapes[module]
    file.seek(places[module])
    a = np.fromfile(file, np.float32, shape.rank * shape.inputs).reshape(shape.rank, shape.inputs)
    b = np.fromfile(file, np.float32, shape.outputs * shape.rank).reshape(shape.outputs, shape.rank)
    return LoraFactors(a, b, layer=shape.layer)
