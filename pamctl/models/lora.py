"""LoRA factors of the model: which projections they adapt, how they start, how they become an adapter."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import Float32, LoraFactors
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import Lora
from pamctl.refusal import Refusal, UsageRefusal


@dataclass(frozen=True)
class Adaptable:
    """One kind of projection that an adapter may adapt, in all layers of a tower.

    Attributes:
        part: between the layer's number and the kind: `self_attn`, `mlp`.
    """

    tower: str
    part: str
    kind: str
    layers: int
    inputs: int
    outputs: int

    def modules(self) -> list[str]:
        """Canonical module ids, one a layer."""
        prefix = {"vision_tower": "vision_tower.encoder"}.get(self.tower, self.tower)
        if not self.part:
            return [f"{prefix}.{self.kind}"]
        return [f"{prefix}.layers.{layer}.{self.part}.{self.kind}" for layer in range(self.layers)]


@cache
def adaptable(config: PaliGemmaConfig) -> tuple[Adaptable, ...]:
    """Return every kind of projection of the model."""
    vision, text = config.vision, config.text
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    language = [
        ("self_attn", "q_proj", text.hidden_size, queries),
        ("self_attn", "k_proj", text.hidden_size, keys),
        ("self_attn", "v_proj", text.hidden_size, keys),
        ("self_attn", "o_proj", queries, text.hidden_size),
        ("mlp", "gate_proj", text.hidden_size, text.intermediate_size),
        ("mlp", "up_proj", text.hidden_size, text.intermediate_size),
        ("mlp", "down_proj", text.intermediate_size, text.hidden_size),
    ]
    sight = [
        ("self_attn", kind, vision.hidden_size, vision.hidden_size)
        for kind in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]
    sight += [
        ("mlp", "fc1", vision.hidden_size, vision.intermediate_size),
        ("mlp", "fc2", vision.intermediate_size, vision.hidden_size),
    ]
    return (
        *(Adaptable("language_model", p, k, text.num_hidden_layers, i, o) for p, k, i, o in language),
        *(Adaptable("vision_tower", p, k, vision.num_hidden_layers, i, o) for p, k, i, o in sight),
        Adaptable("multi_modal_projector", "", "linear", 1, vision.hidden_size, text.hidden_size),
    )


def chosen(config: PaliGemmaConfig, targets: str) -> list[Adaptable]:
    """Return the kinds that `targets`, matched in full against canonical module ids, picks.

    Raises:
        UsageRefusal: not a regular expression, it picks nothing, or only some layers of a kind.
    """
    try:
        pattern = re.compile(targets)
    except re.error as fault:
        raise UsageRefusal(f"targets {targets!r} is not a regular expression: {fault}", "mend it") from fault
    picked = []
    for kind in adaptable(config):
        missed = [module for module in kind.modules() if not pattern.fullmatch(module)]
        if not missed:
            picked.append(kind)
        elif len(missed) < kind.layers:
            raise UsageRefusal(
                f"targets {targets!r} picks some layers of {kind.tower}'s {kind.kind} but not {missed[0]}",
                r"pick all layers of a kind or none, such as with \d+ for the layer's number",
            )
    if not picked:
        examples = ", ".join(kind.modules()[0] for kind in adaptable(config))
        raise UsageRefusal(f"targets {targets!r} picks no module", f"match in full ids such as {examples}")
    return picked


def init_lora(
    config: PaliGemmaConfig, rank: int, targets: str, seed: int, experts: int | None = None
) -> Lora:
    """Return fresh factors: A uniform in ±1/sqrt(in), which is PEFT's kaiming_uniform(a=√5), and B zero.

    Each module draws from its own counter-based stream, keyed by seed and module id.

    Args:
        experts: that share the rank evenly, behind a router uniform in ±1/sqrt(in); None for plain LoRA.

    Raises:
        UsageRefusal: a rank below 1, experts that do not divide it, or as `chosen`.
    """
    if rank < 1:
        raise UsageRefusal(f"rank {rank} is not a positive number", "give a rank of 1 or more, such as 32")
    if experts is not None and (experts < 1 or rank % experts):
        raise UsageRefusal(
            f"rank {rank} cannot be shared evenly by {experts} experts",
            "give a rank that is a multiple of the number of experts, such as 32 for 8",
        )
    lora: Lora = {}
    for kind in chosen(config, targets):
        modules = kind.modules()
        leaves = {
            "a": np.stack([_uniform(seed, module, (kind.inputs, rank)) for module in modules]),
            "b": np.zeros((kind.layers, rank, kind.outputs), np.float32),
        }
        if experts is not None:
            draws = [_uniform(seed, f"{module} router", (kind.inputs, experts)) for module in modules]
            leaves["router"] = np.stack(draws)
        lora.setdefault(kind.tower, {})[kind.kind] = jax.tree.map(jnp.asarray, leaves)
    return lora


def adapts_vision(lora: Lora) -> bool:
    """Whether the factors change what the language tower sees, so that features are their own."""
    return "vision_tower" in lora or "multi_modal_projector" in lora


def lora_to_adapter(lora: Lora, scale: float, config: PaliGemmaConfig) -> dict[str, LoraFactors]:
    """Return the factors by canonical module id, with `scale` folded into b, for `Adapter(modules)`."""
    modules: dict[str, LoraFactors] = {}
    for kind in adaptable(config):
        factors = lora.get(kind.tower, {}).get(kind.kind)
        if factors is None:
            continue
        a, b = np.asarray(factors["a"], np.float32), np.asarray(factors["b"], np.float32)
        for layer, module in enumerate(kind.modules()):
            down, up = np.ascontiguousarray(a[layer].T), np.ascontiguousarray(b[layer].T)
            modules[module] = LoraFactors(down, up * np.float32(scale), 1.0)
    return modules


def routers_of(lora: Lora, config: PaliGemmaConfig) -> dict[str, Float32]:
    """Return the routers (E, in) by canonical module id, for `Adapter(routers=...)`; none of plain LoRA."""
    routers: dict[str, Float32] = {}
    for kind in adaptable(config):
        stacked = lora.get(kind.tower, {}).get(kind.kind, {}).get("router")
        if stacked is None:
            continue
        for module, router in zip(kind.modules(), np.asarray(stacked, np.float32), strict=True):
            routers[module] = np.ascontiguousarray(router.T)
    return routers


def lora_from_adapter(adapter: Adapter, config: PaliGemmaConfig, rank: int | None = None) -> Lora:
    """Return an adapter's factors stacked for the model, and its routers, to be used with scale 1.

    A module's own scale is folded into B. Ranks below `rank` and layers that the adapter lacks are filled
    up with zeros in both factors, which add nothing and which no gradient moves.

    Args:
        rank: None takes the adapter's largest. Experts take no other than their own.

    Raises:
        Refusal: a module that this base lacks, one of another shape, kind of layer or of a larger rank, or a
            tensor that is no factor.
    """
    width = adapter.rank if rank is None else rank
    refuse_unfitting(adapter, config, width)
    lora: Lora = {}
    for kind in adaptable(config):
        layers = {layer: module for layer, module in enumerate(kind.modules()) if module in adapter.shapes}
        if not layers:
            continue
        a = np.zeros((kind.layers, kind.inputs, width), np.float32)
        b = np.zeros((kind.layers, width, kind.outputs), np.float32)
        for layer, module in layers.items():
            factors = adapter.modules[module].folded()
            a[layer, :, : factors.rank] = factors.a.T
            b[layer, : factors.rank] = factors.b.T
        leaves = {"a": a, "b": b}
        if adapter.routers:
            leaves["router"] = np.zeros((kind.layers, kind.inputs, adapter.experts), np.float32)
            for layer, module in layers.items():
                leaves["router"][layer] = adapter.routers[module].T
        lora.setdefault(kind.tower, {})[kind.kind] = jax.tree.map(jnp.asarray, leaves)
    return lora


def refuse_unfitting(adapter: Adapter, config: PaliGemmaConfig, width: int | None = None) -> None:
    """Refuse what `lora_from_adapter` would refuse, before any number is read.

    Args:
        width: the rank in the model; None takes the adapter's largest.
    """
    width = adapter.rank if width is None else width
    _refuse_what_is_no_linear_delta(adapter)
    if adapter.routers and width != adapter.rank:
        raise Refusal(
            f"{adapter.name} has {adapter.experts} experts that share rank {adapter.rank}, not {width}",
            f"use rank {adapter.rank}",
        )
    wanted = {module: kind for kind in adaptable(config) for module in kind.modules()}
    for module, shape in adapter.shapes.items():
        _check_module(
            adapter.name, module, (shape.inputs, shape.outputs), shape.rank, width, wanted.get(module)
        )


def _refuse_what_is_no_linear_delta(adapter: Adapter) -> None:
    if adapter.extras:
        raise Refusal(
            f"{adapter.name} carries {len(adapter.extras)} tensors that are no LoRA factors, such as "
            f"{next(iter(adapter.extras))}, which pamctl's model does not take up",
            "use an adapter of linear modules alone; merging and conversion carry such tensors along",
        )
    for module, shape in adapter.shapes.items():
        if shape.layer.kind != "linear":
            raise Refusal(
                f"{adapter.name} adapts {module}, which is {shape.layer.kind}, and pamctl's model adapts "
                "linear modules only",
                "use an adapter of linear modules alone",
            )


def _check_module(
    adapter: str, module: str, shape: tuple[int, int], rank: int, width: int, kind: Adaptable | None
) -> None:
    if kind is None:
        raise Refusal(
            f"{adapter} adapts {module}, which this base does not have: it was trained on another base",
            "name the base it was trained on with --base",
        )
    if shape != (kind.inputs, kind.outputs):
        raise Refusal(
            f"{adapter} adapts {module} as {shape[0]} to {shape[1]}, this base has {kind.inputs} to "
            f"{kind.outputs}: it was trained on another base",
            "name the base it was trained on with --base",
        )
    if rank > width:
        raise Refusal(f"{adapter} has rank {rank} in {module}, more than {width}", f"use rank {rank} or more")


def _uniform(seed: int, module: str, shape: tuple[int, int]) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(f"{seed} {module}".encode()).digest()[:16], "little")
    draws = np.random.Generator(np.random.Philox(key=key)).random(shape, np.float32)
    return (2 * draws - 1) * np.float32(shape[0] ** -0.5)
