"""Small adapters and PEFT folders for the tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pamctl.adapters import Adapter, BaseModel, LoraFactors, Parent, Provenance, save_adapter

SIZES = {
    "language_model.layers.0.mlp.gate_proj": (16, 24),
    "language_model.layers.0.self_attn.q_proj": (16, 16),
    "multi_modal_projector.linear": (12, 16),
    "vision_tower.encoder.layers.0.mlp.fc1": (12, 20),
}
Q_PROJ = "language_model.layers.0.self_attn.q_proj"
PREFIX = "base_model.model."
KEY = f"{PREFIX}model.language_model.layers.0.self_attn.q_proj"


def random_factors(seed: int, inputs: int, outputs: int, rank: int = 4, scale: float = 1.0) -> LoraFactors:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((rank, inputs), (outputs, rank)))
    return LoraFactors(a, b, scale)


def random_adapter(
    seed: int = 0, *, rank: int = 4, scale: float = 1.0, name: str = "adapter", **record: Any
) -> Adapter:
    modules = {
        module: random_factors(100 * seed + i, inputs, outputs, rank, scale)
        for i, (module, (inputs, outputs)) in enumerate(SIZES.items())
    }
    provenance = Provenance("trained", "trained", **record) if record else None
    return Adapter(modules, provenance, "tiny", name=name)


def child_of(
    parent: Adapter, *, seed: int, drift: float = 0.1, recorded: bool = True, **record: Any
) -> Adapter:
    """An adapter trained from another, so far as arithmetic can tell."""
    away = random_adapter(seed).modules
    modules = {
        module: LoraFactors(factors.a + drift * away[module].a, factors.b + drift * away[module].b)
        for module, factors in parent.modules.items()
    }
    parents = (Parent(parent.fingerprint),) if recorded else ()
    return Adapter(modules, Provenance("trained", "trained", parents=parents, **record), "tiny", name="child")


def on_base(fingerprint: str) -> BaseModel:
    return BaseModel("tiny", fingerprint)


def saved(adapter: Adapter, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_adapter(adapter, folder)
    return folder


def write_peft(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    """A PEFT folder as another program may have written it; by default one module of rank 4."""
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is None:
        tensors = {
            f"{KEY}.lora_A.weight": np.ones((4, 16), np.float32),
            f"{KEY}.lora_B.weight": np.ones((16, 4), np.float32),
        }
    save_file(tensors, folder / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def delta(factors: LoraFactors) -> np.ndarray[Any, np.dtype[np.float64]]:
    return factors.scale * factors.b.astype(np.float64) @ factors.a.astype(np.float64)
