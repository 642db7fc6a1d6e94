"""The methods once more, in float64 torch and from their formulas, to hold the engine against."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from pamctl.adapters import open_adapter
from pamctl.merging import merge
from pamctl.models.base import Base
from pamctl.tasks import open_task
from pamctl.training.batches import encode_split
from pamctl.training.epochs import Visits
from pamctl.training.methods import Merging
from tests.training.method_cases import RATE, STEPS
from tests.training_cases import CONFIG

WEIGHTS, EXPERTS = "adapter_model.safetensors", "experts.safetensors"
Tensor = torch.Tensor
Weights = dict[str, Tensor]
"""`layers.0.self_attn.q_proj.lora_A` -> (r, in); likewise `lora_B` (out, r) and `router` (E, in)."""
Update = Callable[[str, Tensor], Tensor | float]
"""(module, its inputs (n, in)) -> what an adapter adds to its outputs, (n, out)."""


def weights_of(folder: Path) -> Weights:
    """The factors of an adapter folder, and its routers."""
    mixed = folder / EXPERTS
    found = load_file(mixed if mixed.exists() else folder / WEIGHTS)
    named = {_named(name): array for name, array in found.items()}
    return {name: torch.from_numpy(array.astype(np.float64)) for name, array in named.items()}


def _named(tensor: str) -> str:
    """`layers.0.self_attn.q_proj.lora_A` of a tensor of either file."""
    module, factor = tensor.removesuffix(".weight").rsplit(".", 1)
    factors = {"a": "lora_A", "b": "lora_B"}
    return f"{module[module.index('layers.') :]}.{factors.get(factor, factor)}"


def weights_of_tree(lora: Any) -> Weights:
    """The factors of the language tower of the model's tree, whose layers are stacked."""
    names = {"a": "lora_A", "b": "lora_B", "router": "router"}
    return {
        f"layers.{layer}.self_attn.{kind}.{names[leaf]}": torch.from_numpy(array.T.astype(np.float64))
        for kind, factors in lora["language_model"].items()
        for leaf, stacked in factors.items()
        for layer, array in enumerate(np.asarray(stacked))
    }


def merged(before: Path, after: Path, by: Merging) -> Weights:
    """Two adapters merged as a row of the table of methods says."""
    parameters = {name: value for name, value in by.items() if name != "method"}
    adapters = [open_adapter(before), open_adapter(after)]
    result = merge(adapters, by["method"], space="factor", parameters=parameters)
    weights: Weights = {}
    for module, factors in result.modules.items():
        name, folded = module.removeprefix("language_model."), factors.folded()
        weights[f"{name}.lora_A"] = torch.from_numpy(np.asarray(folded.a, np.float64))
        weights[f"{name}.lora_B"] = torch.from_numpy(np.asarray(folded.b, np.float64))
    return weights


def assert_close(found: Weights, expected: Weights, tolerance: float = 1e-5) -> None:
    """Each tensor is the same up to `tolerance` of its norm."""
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        assert found[name].shape == weights.shape, name
        error = torch.linalg.norm(found[name] - weights) / torch.linalg.norm(weights).clamp_min(1e-12)
        assert error <= tolerance, f"{name} is off by {float(error):.1e}"


def each(function: Callable[..., Tensor], *weights: Weights) -> Weights:
    """A function of the weights of a name, for every name."""
    return {name: function(*(of[name] for of in weights)) for name in weights[0]}


def flat(weights: Weights) -> Tensor:
    """All of the weights in a row."""
    return torch.cat([tensor.reshape(-1) for tensor in weights.values()])


@dataclass(frozen=True)
class Encoded:
    """One example: image tokens (n, d), text tokens, and how many of these come before the answer."""

    features: Tensor
    tokens: Tensor
    prefix: int
    smoothing: float = 0.0

    @property
    def targets(self) -> Tensor:
        """The answer and <eos>."""
        return self.tokens[self.prefix :]


def encoded(base: Base, task: Path, smoothing: float = 0.0) -> list[Encoded]:
    """The training examples of a task, each without padding."""
    split = encode_split(base, open_task(str(task)).split("train"), 128)
    images = torch.from_numpy(split.images(Visits.first(range(len(split)))).astype(np.float64))
    tokens = torch.from_numpy(np.asarray(split.texts.tokens, np.int64))
    lengths, prefixes = np.asarray(split.texts.length), np.asarray(split.texts.prefix_length)
    return [
        Encoded(images[row], tokens[row, : lengths[row]], int(prefixes[row]), smoothing)
        for row in range(len(split))
    ]


class Model:
    """Gemma 1 on image tokens and text, one example at a time."""

    def __init__(self, base: Path) -> None:
        found = load_file(base / "model.safetensors")
        begin = "language_model.model."
        self._of = {
            name.removeprefix(begin).removesuffix(".weight"): torch.from_numpy(array.astype(np.float64))
            for name, array in found.items()
            if name.startswith(begin)
        }

    def states(self, example: Encoded, update: Update) -> Tensor:
        """The normed states from which the answer is predicted, (answer, d)."""
        rows = self._of["embed_tokens"]
        x = torch.cat([example.features, rows[example.tokens] * math.sqrt(rows.shape[1])])
        before = len(example.features) + example.prefix
        places = torch.arange(len(x))
        seen = (places[None] <= places[:, None]) | (places[None] < before)
        for layer in range(CONFIG.text.num_hidden_layers):
            x = x + self._attention(f"layers.{layer}", x, seen, update)
            x = x + self._feed_forward(f"layers.{layer}", x)
        return self._norm("norm", x)[before - 1 : len(x) - 1]

    def log_probabilities(self, states: Tensor, temperature: float = 1.0) -> Tensor:
        """log softmax(z / T) of the tokens that states predict, (answer, vocabulary)."""
        return torch.log_softmax(states @ self._of["embed_tokens"].T / temperature, -1)

    def cross_entropy(self, examples: Sequence[Encoded], update: Update) -> Tensor:
        """The mean over examples of the mean over the answer's tokens, smoothed as big_vision does."""
        losses = []
        for example in examples:
            told = self.log_probabilities(self.states(example, update))
            wanted = torch.full_like(told, example.smoothing / (told.shape[1] - 1))
            wanted[torch.arange(len(told)), example.targets] = 1 - example.smoothing
            losses.append(-(wanted * told).sum(-1).mean())
        return torch.stack(losses).mean()

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + self._of[name])

    def _attention(self, layer: str, x: Tensor, seen: Tensor, update: Update) -> Tensor:
        text = CONFIG.text
        x = self._norm(f"{layer}.input_layernorm", x)

        def mapped(kind: str, rows: Tensor) -> Tensor:
            module = f"{layer}.self_attn.{kind}"
            return rows @ self._of[module].T + update(module, rows)

        q, k, v = (
            mapped(kind, x).reshape(len(x), -1, text.head_dim) for kind in ("q_proj", "k_proj", "v_proj")
        )
        scores = torch.einsum("qhd,kd->hqk", _turned(q), _turned(k)[:, 0]) / math.sqrt(text.head_dim)
        shares = torch.softmax(scores.masked_fill(~seen, -math.inf), -1)
        return mapped("o_proj", torch.einsum("hqk,kd->qhd", shares, v[:, 0]).reshape(len(x), -1))

    def _feed_forward(self, layer: str, x: Tensor) -> Tensor:
        x = self._norm(f"{layer}.post_attention_layernorm", x)
        gate = torch.nn.functional.gelu(x @ self._of[f"{layer}.mlp.gate_proj"].T, approximate="tanh")
        return (gate * (x @ self._of[f"{layer}.mlp.up_proj"].T)) @ self._of[f"{layer}.mlp.down_proj"].T


def _turned(x: Tensor) -> Tensor:
    """RoPE of (n, heads, head_dim), the two halves as pairs."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] / 10000.0 ** (torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def lora(weights: Weights, scale: float = 1.0) -> Update:
    """scale · B A x."""

    def update(module: str, x: Tensor) -> Tensor | float:
        if f"{module}.lora_A" not in weights:
            return 0.0
        return scale * x @ weights[f"{module}.lora_A"].T @ weights[f"{module}.lora_B"].T

    return update


def adapted_modules(weights: Mapping[str, Tensor]) -> list[str]:
    """The modules that weights have factors for."""
    return [name.removesuffix(".lora_A") for name in weights if name.endswith(".lora_A")]


def trained(
    start: Weights,
    loss: Callable[[Weights, int], Tensor],
    steps: int = STEPS,
    rate: float = RATE,
    decay: float = 0.0,
    after: Callable[[Weights, int], Weights] = lambda weights, step: weights,
) -> Weights:
    """Adam on the gradient clipped to norm 1, warmed up over 5 % of the steps, then a half cosine to 0.

    Args:
        decay: added to the update times the schedule alone.
        after: what becomes of the weights after each step (1-based).
    """
    weights, first, second = start, each(torch.zeros_like, start), each(torch.zeros_like, start)
    warm = int(0.05 * steps)
    for step in range(1, steps + 1):
        leaves = {name: of.clone().requires_grad_() for name, of in weights.items()}
        found = torch.autograd.grad(loss(leaves, step), list(leaves.values()), allow_unused=True)
        told = {
            name: torch.zeros_like(leaves[name]) if of is None else of
            for name, of in zip(leaves, found, strict=True)
        }
        clipped = 1 / max(1.0, float(torch.linalg.norm(flat(told))))
        first = each(lambda m, g, by=clipped: 0.9 * m + 0.1 * by * g, first, told)
        second = each(lambda v, g, by=clipped: 0.999 * v + 0.001 * (by * g) ** 2, second, told)
        count = step - 1
        progress = max(0, count - warm) / max(1, steps - warm)
        factor = 0.5 * (1 + math.cos(math.pi * progress)) * (min(1, count / warm) if warm else 1)

        def moved(w: Tensor, m: Tensor, v: Tensor, step: int = step, factor: float = factor) -> Tensor:
            adam = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            return w - factor * (rate * adam + decay * w)

        weights = after(each(moved, weights, first, second), step)
    return weights


@dataclass
class Realigned:
    """PAM's check: after every s-th step the weights in conflict with important global ones are put back."""

    to: Weights
    top_p: float
    every: int
    put_back: int = 0

    def __call__(self, weights: Weights, step: int) -> Weights:
        if step % self.every:
            return weights
        sizes = torch.sort(flat(self.to).abs(), descending=True).values
        tau = sizes[math.ceil(self.top_p / 100 * len(sizes)) - 1]

        def checked(new: Tensor, old: Tensor) -> Tensor:
            conflict = (old.abs() >= tau) & (old != 0) & (new.sign() != old.sign())
            self.put_back += int(conflict.sum())
            return torch.where(conflict, old, new)

        return each(checked, weights, self.to)
