"""Which tensors of a checkpoint make up each stacked parameter of the tree, and how both are called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import initial_parameters
from pamctl.models.trees import Tree

_HUB_SPELLING = (
    ("vision_tower.", "vision_tower.vision_model."),
    ("language_model.", "language_model.model."),
)


@dataclass(frozen=True)
class Leaf:
    """One stacked parameter: its path in the tree and the tensors of a checkpoint that make it up.

    Attributes:
        shape: in the tree, layers first where there are any.
        patch: side of a vision patch in pixels.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    patch: int

    @property
    def stacked(self) -> bool:
        """Whether its first axis runs over layers."""
        return "layers" in self.path

    @property
    def layers(self) -> int:
        """How many tensors make it up."""
        return self.shape[0] if self.stacked else 1

    @property
    def one(self) -> tuple[int, ...]:
        """Shape of one layer in the tree."""
        return self.shape[1:] if self.stacked else self.shape

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one layer's tensor in a checkpoint; of the same numbers in the same order."""
        if "patch_embedding" in self.path and self.path[-1] == "weight":
            return (self.one[0], 3, self.patch, self.patch)
        return self.one

    def name(self, layer: int) -> str:
        """Canonical name of one layer's tensor."""
        return ".".join(self.path).replace(".layers.", f".layers.{layer}.")

    def names(self) -> list[str]:
        """Canonical names of all its tensors, one a layer."""
        return [self.name(layer) for layer in range(self.layers)]


def model_leaves(config: PaliGemmaConfig) -> list[Leaf]:
    """Return every parameter of a model, in the order of their paths."""
    abstract = jax.eval_shape(lambda: initial_parameters(config, 0))
    return [Leaf(path, leaf.shape, config.vision.patch_size) for path, leaf in _walk(abstract)]


def canonical_name(name: str) -> str | None:
    """Return the one spelling of a checkpoint's tensor name; None for the tied head, which is a copy.

    >>> canonical_name("model.vision_tower.vision_model.post_layernorm.bias")
    'vision_tower.post_layernorm.bias'
    >>> canonical_name("language_model.model.norm.weight")
    'language_model.norm.weight'
    """
    if re.fullmatch(r"(language_model\.)?lm_head\.weight", name):
        return None
    name = name.removeprefix("model.")
    for ours, hub in _HUB_SPELLING:
        if name.startswith(hub):
            return ours + name.removeprefix(hub)
    return name


def hub_name(canonical: str) -> str:
    """Return a tensor's name as the files on the Hub spell it, which every transformers reads."""
    for ours, hub in _HUB_SPELLING:
        if canonical.startswith(ours):
            return hub + canonical.removeprefix(ours)
    return canonical


def _walk(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            yield from _walk(value, (*path, key))
        else:
            yield (*path, key), value
