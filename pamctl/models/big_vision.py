"""Parameters from big_vision's .npz checkpoints: its names and axes turned into those of Hugging Face."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pamctl.models.big_vision_config import ADDED_ROWS, inferred_config
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.leaves import Leaf, model_leaves
from pamctl.models.npz_file import NpzArray, NpzStream, npz_arrays
from pamctl.models.stored import KINDS, Run, StoredModel
from pamctl.refusal import Refusal

Rows = Callable[[np.ndarray], np.ndarray]
"""Turns one layer of an array, as big_vision has it, to (outputs, inputs) or whatever the leaf is."""

_WAY_ON = "use a PaliGemma checkpoint of big_vision, such as paligemma-3b-pt-224.npz"
_EMBEDDING = "llm/embedder/input_embedding"
_V = "vision_tower."


def big_vision_model(file: Path) -> tuple[PaliGemmaConfig, StoredModel]:
    """Find every tensor of a model in a big_vision checkpoint, their numbers unread.

    Returns:
        The configuration that its shapes mean, and its tensors in the layout of Hugging Face; the rows that
        this has beyond big_vision's are zeros.

    Raises:
        Refusal: as `npz_arrays`; arrays missing, unexpected or of a wrong shape.
    """
    arrays = {name.removeprefix("params/"): array for name, array in npz_arrays(file).items()}
    config = inferred_config(arrays, str(file))
    layout = _layout(config)
    _check(file, arrays, layout)
    groups = tuple((_run(arrays[name], parts),) for name, parts in layout.items())
    return config, StoredModel((file,), groups)


@dataclass(frozen=True)
class _Part:
    """A parameter in an array.

    Attributes:
        shape: of one layer of the array.
    """

    leaf: Leaf
    shape: tuple[int, ...]
    rows: Rows


def _layout(config: PaliGemmaConfig) -> dict[str, list[_Part]]:
    """Return the parameters in each array, by big_vision's name, several in the order of its second axis."""
    leaves = {".".join(leaf.path): leaf for leaf in model_leaves(config)}
    layout: dict[str, list[_Part]] = {}
    for name, path, shape, rows in (*_vision(config), *_text(config)):
        layout.setdefault(name, []).append(_Part(leaves[path], shape, rows))
    return layout


_Row = tuple[str, str, tuple[int, ...], Rows]


def _vision(config: PaliGemmaConfig) -> Iterator[_Row]:
    vision, text = config.vision, config.text
    d, f, n, h, p = (
        *(vision.hidden_size, vision.intermediate_size, vision.num_attention_heads),
        *(vision.head_dim, vision.patch_size),
    )
    theirs, ours = "img/Transformer/encoderblock/", "vision_tower.encoder.layers."
    yield "img/embedding/kernel", f"{_V}embeddings.patch_embedding.weight", (p, p, 3, d), _patches
    yield "img/embedding/bias", f"{_V}embeddings.patch_embedding.bias", (d,), _same
    yield (
        *("img/pos_embedding", f"{_V}embeddings.position_embedding.weight"),
        *((1, vision.image_tokens, d), _first),
    )
    for number in (0, 1):
        yield from _norm(f"{theirs}LayerNorm_{number}", f"{ours}layer_norm{number + 1}", d)
    for number, (inputs, outputs) in enumerate(((d, f), (f, d))):
        dense, fc = f"{theirs}MlpBlock_0/Dense_{number}", f"{ours}mlp.fc{number + 1}"
        yield f"{dense}/kernel", f"{fc}.weight", (inputs, outputs), _turned
        yield f"{dense}/bias", f"{fc}.bias", (outputs,), _same
    attention = f"{theirs}MultiHeadDotProductAttention_0"
    for name in ("query", "key", "value"):
        to = f"{ours}self_attn.{name[0]}_proj"
        yield f"{attention}/{name}/kernel", f"{to}.weight", (d, n, h), _heads_last
        yield f"{attention}/{name}/bias", f"{to}.bias", (n, h), _flat
    yield f"{attention}/out/kernel", f"{ours}self_attn.out_proj.weight", (n, h, d), _heads_in
    yield f"{attention}/out/bias", f"{ours}self_attn.out_proj.bias", (d,), _same
    yield from _norm("img/Transformer/encoder_norm", f"{_V}post_layernorm", d)
    yield "img/head/kernel", "multi_modal_projector.linear.weight", (d, text.hidden_size), _turned
    yield "img/head/bias", "multi_modal_projector.linear.bias", (text.hidden_size,), _same


def _text(config: PaliGemmaConfig) -> Iterator[_Row]:
    text = config.text
    d, f, n, k, h = (
        *(text.hidden_size, text.intermediate_size, text.num_attention_heads),
        *(text.num_key_value_heads, text.head_dim),
    )
    theirs, ours = "llm/layers/", "language_model.layers."
    yield _EMBEDDING, "language_model.embed_tokens.weight", (text.vocab_size - ADDED_ROWS, d), _same
    yield f"{theirs}attn/q_einsum/w", f"{ours}self_attn.q_proj.weight", (n, d, h), _heads_out
    for name in "kv":
        yield f"{theirs}attn/kv_einsum/w", f"{ours}self_attn.{name}_proj.weight", (k, d, h), _heads_out
    yield f"{theirs}attn/attn_vec_einsum/w", f"{ours}self_attn.o_proj.weight", (n, h, d), _heads_in
    for name in ("gate", "up"):
        yield f"{theirs}mlp/gating_einsum", f"{ours}mlp.{name}_proj.weight", (d, f), _turned
    yield f"{theirs}mlp/linear", f"{ours}mlp.down_proj.weight", (f, d), _turned
    # What comes before the feed-forward is called after the attention in the first generation.
    norms = {"pre_attention": "input_layernorm", "pre_ffw": "post_attention_layernorm"}
    if text.generation == 2:
        norms |= {
            "post_attention": "post_attention_layernorm",
            "pre_ffw": "pre_feedforward_layernorm",
            "post_ffw": "post_feedforward_layernorm",
        }
    for name, norm in norms.items():
        yield f"{theirs}{name}_norm/scale", f"{ours}{norm}.weight", (d,), _same
    yield "llm/final_norm/scale", "language_model.norm.weight", (d,), _same


def _norm(theirs: str, ours: str, width: int) -> Iterator[_Row]:
    yield f"{theirs}/scale", f"{ours}.weight", (width,), _same
    yield f"{theirs}/bias", f"{ours}.bias", (width,), _same


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1)


def _first(values: np.ndarray) -> np.ndarray:
    return values[0]


def _turned(values: np.ndarray) -> np.ndarray:
    """(in, out) to (out, in)."""
    return values.T


def _patches(values: np.ndarray) -> np.ndarray:
    """(patch, patch, 3, out) to (out, 3 * patch * patch)."""
    return values.transpose(3, 2, 0, 1).reshape(values.shape[-1], -1)


def _heads_last(values: np.ndarray) -> np.ndarray:
    """(in, heads, head) to (heads * head, in)."""
    return values.reshape(len(values), -1).T


def _heads_out(values: np.ndarray) -> np.ndarray:
    """(heads, in, head) to (heads * head, in)."""
    return values.transpose(0, 2, 1).reshape(-1, values.shape[1])


def _heads_in(values: np.ndarray) -> np.ndarray:
    """(heads, head, out) to (out, heads * head)."""
    return values.reshape(-1, values.shape[-1]).T


def _shape(parts: list[_Part]) -> tuple[int, ...]:
    """The whole array's."""
    first = parts[0]
    layers = (first.leaf.layers,) if first.leaf.stacked else ()
    return (*layers, *((len(parts),) if len(parts) > 1 else ()), *first.shape)


def _check(file: Path, arrays: Mapping[str, NpzArray], layout: Mapping[str, list[_Part]]) -> None:
    faults = [f"missing {name}" for name in layout if name not in arrays]
    faults += [f"unexpected {name}" for name in arrays if name not in layout]
    for name, parts in layout.items():
        if name in arrays and arrays[name].shape != _shape(parts):
            faults.append(f"{name} has shape {arrays[name].shape}, the others mean {_shape(parts)}")
    if faults:
        raise Refusal(f"{file} does not hold a PaliGemma of big_vision: " + "; ".join(faults), _WAY_ON)


def _run(array: NpzArray, parts: list[_Part]) -> Run:
    """All layers of an array, which a compressed file gives only in their order."""
    layers = range(parts[0].leaf.layers)
    tensors = tuple((part.leaf, layer, array.kind) for layer in layers for part in parts)

    def opened() -> Iterator[_Tensor | _Rows]:
        with array.opened() as stream:
            if array.member.endswith(f"{_EMBEDDING}.npy"):
                yield _Rows(stream)  # too large to be held whole
                return
            layer = np.empty((len(parts), *parts[0].shape), KINDS[array.kind])
            for _ in layers:
                stream.read(layer)
                yield from (
                    _Tensor(array, part.rows(values)) for part, values in zip(parts, layer, strict=True)
                )

    return Run(tensors, opened)


@dataclass(frozen=True)
class _Tensor:
    """A tensor in memory."""

    array: NpzArray
    values: np.ndarray

    @property
    def kind(self) -> str:
        return self.array.kind

    @property
    def where(self) -> str:
        return self.array.where

    def fill(self, start: int, out: np.ndarray) -> None:
        out[...] = self.values[start : start + len(out)]


@dataclass(frozen=True)
class _Rows:
    """A tensor whose rows lie in the file as they are wanted; those beyond its end are zeros."""

    stream: NpzStream

    @property
    def kind(self) -> str:
        return self.stream.array.kind

    @property
    def where(self) -> str:
        return self.stream.array.where

    def fill(self, start: int, out: np.ndarray) -> None:
        there = max(0, min(len(out), self.stream.array.shape[0] - start))
        self.stream.read(out[:there])
        out[there:] = 0
