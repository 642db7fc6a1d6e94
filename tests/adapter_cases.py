"""Small adapters and PEFT folders for the tests, and the strategy that draws random adapters."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pamctl.adapters import Adapter, BaseModel, LoraFactors, Parent, Provenance, save_adapter
from pamctl.adapters.factors import EMBEDDING, LINEAR, Layer
from pamctl.adapters.tensor_file import DTYPES as NUMPY_DTYPES

SIZES = {
    "language_model.layers.0.mlp.gate_proj": (16, 24),
    "language_model.layers.0.self_attn.q_proj": (16, 16),
    "multi_modal_projector.linear": (12, 16),
    "vision_tower.encoder.layers.0.mlp.fc1": (12, 20),
}
Q_PROJ = "language_model.layers.0.self_attn.q_proj"
PREFIX = "base_model.model."
KEY = f"{PREFIX}model.language_model.layers.0.self_attn.q_proj"

DTYPES = ("F32", "F16", "BF16")
SCALES: tuple[float | str, ...] = (0.25, 1.0, 2.0, 4.0, "rsLoRA")
LINEAR_IDS = (*SIZES, "language_model.layers.1.self_attn.q_proj", "lm_head")
CONV_IDS = ("vision_tower.embeddings.patch_embedding", "mixer.conv")
EMBEDDING_IDS = ("language_model.embed_tokens",)


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


@st.composite
def adapters(
    draw: st.DrawFn,
    linear: Sequence[str] = LINEAR_IDS,
    conv: Sequence[str] = (),
    embedding: Sequence[str] = (),
    kernel_lengths: Sequence[int] = (1, 2, 3),
) -> Adapter:
    """Random adapters: mixed ranks, square and not, each module with its own of `SCALES`.

    Args:
        linear, conv, embedding: the ids to draw the modules of each kind from; () for none of the kind.
        kernel_lengths: how many axes the kernel of a convolution may have.
    """
    ids = draw(st.lists(st.sampled_from((*linear, *conv, *embedding)), min_size=1, max_size=5, unique=True))
    sides, seed = st.integers(1, 7), draw(st.integers(0, 2**16))
    modules = {}
    for module in ids:
        layer = EMBEDDING if module in embedding else LINEAR
        if module in conv:
            axes = draw(st.sampled_from(kernel_lengths))
            layer = Layer("conv", tuple(draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))))
        outputs, rank = draw(sides), draw(st.integers(1, 5))
        channels = outputs if draw(st.booleans()) else draw(sides)
        scale = draw(st.sampled_from(SCALES))
        rng = np.random.default_rng([seed, len(modules)])
        modules[module] = LoraFactors(
            rng.standard_normal((rank, channels * math.prod(layer.kernel)), np.float32),
            rng.standard_normal((outputs, rank), np.float32),
            8 / math.sqrt(rank) if isinstance(scale, str) else scale,
            layer,
        )
    return Adapter(modules)


def same_deltas(
    read: Adapter, written: Adapter, dtype: str = "F32", renamed: Callable[[str], str] = lambda module: module
) -> None:
    """Assert that an adapter read back does what the one written did, to one ulp of the dtype at rest.

    Each of the two factors is off by at most half an ulp, so each element of the delta by one, of the sum of
    its terms' magnitudes; below the dtype's normal numbers by half its smallest number a factor. The fold of
    the scale into B is half an ulp of float32 more.

    Args:
        dtype: the one that was written, of `DTYPES`.
        renamed: the id under which a module is read again.
    """
    assert set(read.shapes) == {renamed(module) for module in written.shapes}
    limits = ml_dtypes.finfo(NUMPY_DTYPES[dtype])
    ulp = float(limits.eps) + 2.0**-24
    smallest = float(limits.smallest_subnormal)
    for module, factors in written.modules.items():
        back = read.modules[renamed(module)]
        assert back.layer == factors.layer, module
        a, b = np.abs(factors.a.astype(np.float64)), abs(factors.scale) * np.abs(factors.b.astype(np.float64))
        allowed = ulp * (1 + ulp) * (b @ a) + smallest * (a.sum(axis=0) + b.sum(axis=1)[:, None] + smallest)
        off = np.abs(delta(back) - delta(factors))
        assert (off <= allowed).all(), f"{module} is off by {(off / allowed).max():.3g} times what is allowed"
