"""What a split becomes before training: token ids, and image features or pixels, to be picked by index."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from pamctl.models.base import Base
from pamctl.models.paligemma import image_features
from pamctl.models.text import TextBatch, bucket, text_batch
from pamctl.refusal import Refusal
from pamctl.tasks.task import Example

IMAGES_AT_ONCE = 100
MEMORY_FOR_FEATURES = 2 * 2**30
MOST_DECODERS = 16

Indices = NDArray[np.int64]


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
        images: features (b, n, d), or pixels (b, images, h, w, 3).
        smoothing: label smoothing of each, (b,) float32.
    """

    images: Any
    texts: TextBatch
    smoothing: Any


@dataclass(frozen=True)
class EncodedSplit:
    """A split ready for training.

    Attributes:
        texts: every example, (examples, width).
        images: indices -> features (b, n, d) of the frozen vision tower, or pixels (b, images, h, w, 3) where
            the adapter changes what the tower makes of them or they would not fit in memory.
        features_given: which of the two `images` gives.
        fingerprint: SHA-256 of ids, prompts and answers, and of the images where they are read beforehand.
        smoothing: each example's label smoothing, (examples,) float32.
    """

    texts: TextBatch
    images: Callable[[Indices], np.ndarray]
    features_given: bool
    fingerprint: str
    smoothing: np.ndarray

    def __len__(self) -> int:
        return len(self.texts.tokens)

    def smoothed(self, smoothing: float) -> "EncodedSplit":
        """The same split with one label smoothing for every example."""
        return replace(self, smoothing=np.full(len(self), smoothing, np.float32))

    def batch(self, indices: Indices, rows: Indices | None = None) -> Batch:
        """Return some examples, texts no wider than the bucket of the longest of them.

        Args:
            indices: of the whole batch, which decide the widths.
            rows: those of them that are returned; None for all.
        """
        texts, length = self.texts, np.asarray(self.texts.length)
        suffix = length[indices] - np.asarray(texts.prefix_length)[indices]
        width = min(bucket(int(length[indices].max())), texts.tokens.shape[1])
        kept = indices if rows is None else indices[rows]
        chosen = replace(
            texts,
            tokens=texts.tokens[kept, :width],
            prefix_length=texts.prefix_length[kept],
            length=texts.length[kept],
            suffix_width=min(bucket(int(suffix.max())), texts.suffix_width),
        )
        return Batch(self.images(kept), chosen, self.smoothing[kept])


def encode_split(
    base: Base, examples: Sequence[Example], text_length: int, *, vision_adapted: bool = False
) -> EncodedSplit:
    """Encode a split for training on each example's first answer.

    Where the vision tower is frozen and the features of the split fit in memory, they are computed here,
    once; otherwise images are read batch by batch.

    Args:
        text_length: most tokens of prefix, separator and answer together.
        vision_adapted: whether the adapter changes the vision tower or the projector.

    Raises:
        Refusal: an image cannot be read, an answer is empty, or a text is longer than `text_length`.
    """
    digest = hashlib.sha256()
    texts = encode_texts(base, _recorded(examples, digest), text_length)
    features: np.ndarray | None = None
    # Several processes would each compute all of them.
    alone = jax.process_count() == 1
    if alone and not vision_adapted and len(examples) * _feature_bytes(base) <= MEMORY_FOR_FEATURES:
        features = image_features_of(base, examples, digest.update)
    images = features.__getitem__ if features is not None else _pixels_of(base, examples)
    smoothing = np.zeros(len(examples), np.float32)
    return EncodedSplit(texts, images, features is not None, digest.hexdigest(), smoothing)


def joined(splits: Sequence[EncodedSplit], pad: int) -> EncodedSplit:
    """Return the examples of several splits one after the other; all give features, or all pixels.

    Args:
        pad: the token that fills up the texts of narrower splits.
    """
    if len(splits) == 1:
        return splits[0]
    texts = [split.texts for split in splits]
    width = max(of.tokens.shape[1] for of in texts)
    padded = [
        np.pad(of.tokens, ((0, 0), (0, width - of.tokens.shape[1])), constant_values=pad) for of in texts
    ]
    starts = np.cumsum([0, *map(len, splits)])

    def images(indices: Indices) -> np.ndarray:
        owners = np.searchsorted(starts, indices, side="right") - 1
        first, *others = np.unique(owners)
        rows = splits[first].images(indices[owners == first] - starts[first])
        found = np.empty((len(indices), *rows.shape[1:]), rows.dtype)
        found[owners == first] = rows
        for owner in others:
            found[owners == owner] = splits[owner].images(indices[owners == owner] - starts[owner])
        return found

    return EncodedSplit(
        replace(
            texts[0],
            tokens=np.concatenate(padded),
            prefix_length=np.concatenate([of.prefix_length for of in texts]),
            length=np.concatenate([of.length for of in texts]),
            suffix_width=max(of.suffix_width for of in texts),
        ),
        images,
        splits[0].features_given,
        _together(splits),
        np.concatenate([split.smoothing for split in splits]),
    )


def _together(splits: Sequence[EncodedSplit]) -> str:
    told = [(split.fingerprint, hashlib.sha256(split.smoothing.tobytes()).hexdigest()) for split in splits]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def encode_texts(base: Base, examples: Iterable[Example], text_length: int) -> TextBatch:
    """Return the texts of all examples in one batch, refusing one that is too long by its id.

    The width is the bucket of the longest.
    """
    pairs = []
    for example in examples:
        if not example.answers or not example.suffix.strip():
            raise Refusal(f"example {example.id} has an empty answer", "give it an answer, or remove it")
        prefix, suffix = (
            base.tokenizer.encode_prefix(example.prefix),
            base.tokenizer.encode_suffix(example.suffix),
        )
        if len(prefix) + len(suffix) > text_length:
            raise Refusal(
                f"example {example.id} has {len(prefix)} prompt and {len(suffix)} answer tokens, "
                f"more than the task's text length of {text_length}",
                "shorten it, or remove it",
            )
        pairs.append((prefix, suffix))
    width = max(len(prefix) + len(suffix) for prefix, suffix in pairs)
    suffix_width = max(len(suffix) for _, suffix in pairs)
    return text_batch(pairs, bucket(width), bucket(suffix_width), base.config.pad_token_id)


def image_features_of(
    base: Base, examples: Sequence[Example], on_pixels: Callable[[bytes], object] | None = None
) -> np.ndarray:
    """Return what the frozen vision tower makes of every example: (examples, n, d).

    Args:
        on_pixels: told the bytes of the pixels, batch by batch.
    """
    parts = []
    for first in range(0, len(examples), IMAGES_AT_ONCE):
        pixels = load_pixels(base, examples[first : first + IMAGES_AT_ONCE])
        if on_pixels is not None:
            on_pixels(pixels.tobytes())
        # Always the same number of rows, so that the last batch is no second compilation.
        full = np.resize(pixels, (IMAGES_AT_ONCE, *pixels.shape[1:]))
        parts.append(np.asarray(image_features(base.config, base.parameters, {}, 1.0, full))[: len(pixels)])
    return np.concatenate(parts)


def load_pixels(base: Base, examples: Iterable[Example]) -> NDArray[np.float32]:
    """Return the images of some examples, (b, 1, h, w, 3) in [-1, 1], decoded on all cores.

    Raises:
        Refusal: one cannot be read; it is named by its id.
    """
    return np.stack(list(_decoders().map(partial(_pixels, base), examples)))[:, None]


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_DECODERS), "decoder")


def _pixels(base: Base, example: Example) -> NDArray[np.float32]:
    try:
        return base.images.pixels(example.load_image())
    except (OSError, ValueError, SyntaxError) as fault:
        raise Refusal(
            f"the image of example {example.id} cannot be read: {fault}",
            "replace the file, or remove the example",
        ) from fault


def _pixels_of(base: Base, examples: Sequence[Example]) -> Callable[[Indices], np.ndarray]:
    return lambda indices: load_pixels(base, [examples[int(index)] for index in indices])


def _recorded(examples: Iterable[Example], digest: "hashlib._Hash") -> Iterable[Example]:
    for example in examples:
        digest.update(repr((example.id, example.prefix, example.answers[:1])).encode())
        yield example


def _feature_bytes(base: Base) -> int:
    number = jax.tree.leaves(base.parameters["multi_modal_projector"])[0].dtype.itemsize
    return number * base.config.vision.image_tokens * base.config.text.hidden_size
