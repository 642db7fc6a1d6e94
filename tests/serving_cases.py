"""Adapters that break each rule of `pamctl.serving`, and plain ones that break none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pamctl.adapters import save_adapter
from tests.adapter_cases import KEY, PREFIX, random_adapter, random_factors, write_peft

Tensors = dict[str, Any]
Writer = Callable[[Path], Path]
LAYERS = f"{PREFIX}model.language_model.layers"
V_PROJ = KEY.replace("q_proj", "v_proj")
TOWER = f"{PREFIX}model.vision_tower.vision_model.encoder.layers.0.mlp.fc1"
TARGET_MODULES = ["q_proj", "v_proj"]


def pair(key: str, rank: int = 4, inputs: int = 16, outputs: int = 16) -> Tensors:
    factors = random_factors(len(key) + rank, inputs, outputs, rank)
    return {f"{key}.lora_A.weight": factors.a, f"{key}.lora_B.weight": factors.b}


def peft(tensors: Tensors | None = None, **config: Any) -> Writer:
    fields = {"target_modules": TARGET_MODULES, "base_model_name_or_path": "tiny", **config}
    return lambda folder: write_peft(folder, tensors or pair(KEY), **fields)


def without(field: str) -> Writer:
    def write(folder: Path) -> Path:
        config = json.loads((peft()(folder) / "adapter_config.json").read_text())
        del config[field]
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return write


def renamed(name: str) -> Writer:
    def write(folder: Path) -> Path:
        (peft()(folder) / "adapter_model.safetensors").rename(folder / name)
        return folder

    return write


def mlx(tensors: Tensors | None = None, lora: dict[str, Any] | None = None, **changes: Any) -> Writer:
    def write(folder: Path) -> Path:
        folder.mkdir()
        factors = random_factors(0, 16, 16)
        key = "model.layers.0.self_attn.q_proj"
        save_file(
            tensors or {f"{key}.lora_a": factors.a.T.copy(), f"{key}.lora_b": factors.b.T.copy()},
            folder / "adapters.safetensors",
        )
        parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
        config = {
            "fine_tune_type": "lora",
            "num_layers": -1,
            "lora_parameters": parameters | (lora or {}),
        }
        kept = {key: value for key, value in (config | changes).items() if value is not None}
        (folder / "adapter_config.json").write_text(json.dumps(kept))
        return folder

    return write


def single(tensors: Tensors, metadata: dict[str, str] | None = None) -> Writer:
    def write(folder: Path) -> Path:
        folder.mkdir()
        save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata)
        return folder

    return write


def orbax(folder: Path) -> Path:
    folder.mkdir()
    save_adapter(random_adapter(), folder, "orbax")
    return folder


def unet(*ranks: int, prefix: str = "unet.") -> Tensors:
    tensors: Tensors = {}
    for at, rank in enumerate(ranks):
        tensors |= pair(f"{prefix}down_blocks.0.attentions.{at}.transformer_blocks.0.attn1.to_q", rank)
    return tensors


def kohya(**more: Any) -> Tensors:
    key = "lora_unet_down_blocks_0_resnets_0_conv1"
    factors = random_factors(0, 16, 16)
    return {
        f"{key}.lora_down.weight": factors.a.reshape(4, 16, 1, 1),
        f"{key}.lora_up.weight": factors.b.reshape(16, 4, 1, 1),
        f"{key}.alpha": np.array(4, np.float32),
        **{f"{key}.{name}": tensor for name, tensor in more.items()},
    }


def kohya_named(*modules: str) -> Tensors:
    return {
        name.replace(name.partition(".")[0], module): tensor.reshape(tensor.shape[:2])
        for module in modules
        for name, tensor in kohya().items()
    }


ATTENTION = "text_model_encoder_layers_1_self_attn"
TUCKER = kohya(**{"lora_mid.weight": np.ones((4, 4, 3, 3), np.float32)})
TWO_ALPHAS = kohya() | {
    name.replace("down_blocks_0", "up_blocks_0"): np.asarray(tensor / 2) for name, tensor in kohya().items()
}
ZERO_ALPHA = kohya(alpha=np.zeros((), np.float32))
NOT_EVERY_ALPHA = {name: tensor for name, tensor in TWO_ALPHAS.items() if name != min(TWO_ALPHAS)}
PLAIN = {
    "vllm": peft(),
    "peft": peft(),
    "lorax": peft(),
    "mlx": mlx(),
    "diffusers": single(unet(4, 4)),
}
TWO_RANKS = {**pair(KEY), **pair(V_PROJ, rank=2)}
OWN_RANK = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 4}}
BARE = {name.removeprefix(PREFIX): tensor for name, tensor in pair(KEY).items()}
DUMPED, DUMPED_AS_ANOTHER = (
    {name.replace(".weight", f".{dumped}.weight"): tensor for name, tensor in pair(KEY).items()}
    for dumped in ("default", "another")
)
WITH_BIAS = {**pair(KEY), f"{KEY}.lora_B.bias": np.ones(16, np.float32)}
WITH_HEAD = {**pair(KEY), f"{PREFIX}lm_head.weight": np.ones((10, 16), np.float32)}
CONV = {
    f"{KEY}.lora_A.weight": np.ones((4, 3, 2, 2), np.float32),
    f"{KEY}.lora_B.weight": np.ones((16, 4, 1, 1), np.float32),
}
EMBEDDING = {
    f"{PREFIX}model.language_model.embed_tokens.lora_embedding_A": np.ones((4, 100), np.float32),
    f"{PREFIX}model.language_model.embed_tokens.lora_embedding_B": np.ones((16, 4), np.float32),
}
FIFTH = pair(f"{PREFIX}model.vision_tower.encoder.layers.0.mlp.fc1")
OLD_PROJECTOR = pair(f"{PREFIX}multi_modal_projector.linear")
GAP = {
    **pair(f"{LAYERS}.0.mlp.up_proj"),
    **pair(f"{LAYERS}.1.mlp.up_proj"),
    **pair(f"{LAYERS}.1.mlp.down_proj"),
}
MLX_A = random_factors(0, 16, 16).a.T.copy()
MLX_B = random_factors(0, 16, 16).b.T.copy()


def mlx_module(path: str, a: str = "lora_a", b: str = "lora_b", rank: int = 4) -> Tensors:
    return {f"{path}.{a}": MLX_A[:, :rank].copy(), f"{path}.{b}": MLX_B[:rank].copy()}


TWO_MLX_RANKS = {
    **mlx_module("model.layers.0.self_attn.q_proj"),
    **mlx_module("model.layers.1.self_attn.q_proj", rank=2),
}
TWO_MLX_LAYERS = {
    **mlx_module("model.layers.0.self_attn.q_proj"),
    **mlx_module("model.layers.4.self_attn.q_proj"),
}

# What breaks each rule of each target, and whether a command mends it.
BROKEN: list[tuple[str, str, Writer, bool]] = [
    *((target, "format", mlx(), True) for target in ("vllm", "peft", "lorax")),
    ("mlx", "format", peft(pair(f"{PREFIX}model.layers.0.self_attn.q_proj")), True),
    ("vllm", "format", orbax, True),
    ("diffusers", "format", peft(unet(4, prefix=PREFIX)), True),
    *((target, "file-name", renamed("weights.safetensors"), True) for target in ("vllm", "peft", "lorax")),
    ("vllm", "config", without("lora_alpha"), True),
    ("vllm", "config", without("target_modules"), True),
    ("peft", "config", without("peft_type"), False),
    ("lorax", "config", without("peft_type"), False),
    *((target, "plain-lora", peft(use_dora=True), False) for target in ("vllm", "lorax")),
    *((target, "plain-lora", peft(init_lora_weights="pissa"), False) for target in ("vllm", "lorax")),
    *((target, "config-fits", peft(pair(KEY, rank=2)), False) for target in ("vllm", "peft", "lorax")),
    *((target, "one-scale", peft(alpha_pattern={"q_proj": 16}), True) for target in ("vllm", "lorax")),
    *((target, "one-scale", peft(TWO_RANKS, **OWN_RANK), True) for target in ("vllm", "lorax")),
    ("lorax", "one-rank", peft(TWO_RANKS, **OWN_RANK), True),
    *(
        (target, "full-modules", peft(WITH_HEAD, modules_to_save=["lm_head"]), False)
        for target in ("vllm", "lorax")
    ),
    *((target, "full-modules", peft(modules_to_save=["lm_head"]), True) for target in ("vllm", "lorax")),
    *((target, "bias", peft(WITH_BIAS, lora_bias=True), False) for target in ("vllm", "lorax")),
    *((target, "bias", peft(bias="all"), True) for target in ("vllm", "lorax")),
    *((target, "keys", peft(DUMPED), True) for target in ("vllm", "lorax")),
    ("peft", "keys", peft(DUMPED_AS_ANOTHER), True),
    *((target, "keys", peft(BARE), True) for target in ("vllm", "peft", "lorax")),
    ("peft", "spelling", peft(FIFTH, target_modules=["fc1"]), True),
    ("vllm", "spelling", peft(FIFTH, target_modules=["fc1"]), True),
    ("peft", "spelling", peft(OLD_PROJECTOR, target_modules=["linear"]), True),
    *((target, "linear-only", peft(CONV), False) for target in ("vllm", "lorax")),
    ("lorax", "embeddings", peft(EMBEDDING, target_modules=["embed_tokens"]), False),
    ("vllm", "rank", peft(pair(KEY, rank=513), r=513, lora_alpha=513), True),
    ("vllm", "rank", peft(pair(KEY, rank=17), r=17, lora_alpha=17), False),
    ("vllm", "towers", peft(pair(TOWER), target_modules=["fc1"]), False),
    ("peft", "targets", peft(TWO_RANKS | pair(V_PROJ), target_modules=["q_proj"]), True),
    ("peft", "targets", peft(target_modules=r".*\.v_proj"), True),
    ("peft", "targets", without("target_modules"), True),
    ("lorax", "every-layer", peft(GAP, target_modules=["up_proj", "down_proj"]), False),
    ("mlx", "config", mlx(num_layers=None), True),
    ("mlx", "keys", mlx(mlx_module("model.layers.0.self_attn.q_proj", "A", "B")), True),
    ("mlx", "one-rank", mlx(TWO_MLX_RANKS), False),
    ("mlx", "modules", mlx(mlx_module("lm_head"), lora={"keys": None}), True),
    ("mlx", "modules", mlx(TWO_MLX_LAYERS, num_layers=3), True),
    ("mlx", "modules", mlx(lora={"keys": ["self_attn.v_proj"]}), True),
    ("diffusers", "prefix", single(unet(4, prefix="diffusion_model.")), True),
    ("diffusers", "scale", single(unet(4, 2)), True),
    ("diffusers", "alphas", single(TWO_ALPHAS), True),
    ("diffusers", "alphas", single(ZERO_ALPHA), True),
    ("diffusers", "alphas", single(NOT_EVERY_ALPHA), True),
    ("diffusers", "names", single(kohya_named("lora_unet_add_embedding_linear_1")), True),
    ("diffusers", "names", single(kohya_named(f"lora_te2_{ATTENTION}_q_proj")), True),
    ("diffusers", "products", single(TUCKER), True),
]
