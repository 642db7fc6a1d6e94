"""LoRA checkpoints on disk: opened lazily, written as PEFT folders with their provenance."""

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import ComputedModules, LoraFactors, ModuleShape
from pamctl.adapters.formats import open_adapter, save_adapter, write_adapter
from pamctl.adapters.provenance import BaseModel, Parent, Provenance

__all__ = [
    "Adapter",
    "BaseModel",
    "ComputedModules",
    "LoraFactors",
    "ModuleShape",
    "Parent",
    "Provenance",
    "open_adapter",
    "save_adapter",
    "write_adapter",
]
