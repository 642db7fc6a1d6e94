"""What a split becomes before training: token ids, and image features or pixels, to be picked by index."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from pamctl.models.base import Base
from pamctl.models.paligemma import image_features
from pamctl.models.text import TextBatch, bucket
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.task import TRAIN, Example, Task, Visit, first_answer
from pamctl.tasks.visits import images_at
from pamctl.training.epochs import Indices, Visits
from pamctl.training.texts import TextLimit, encode_texts, texts_at

IMAGES_AT_ONCE = 100
MEMORY_FOR_FEATURES = 2 * 2**30
MOST_DECODERS = 16


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
        texts: every example with its first answer, (examples, width).
        images: visits -> features (b, n, d) of the frozen vision tower, or pixels (b, images, h, w, 3) where
            the adapter changes what the tower makes of them or they would not fit in memory.
        features_given: which of the two `images` gives.
        fingerprint: SHA-256 of ids, prompts and answers, and of the images where they are read beforehand.
        smoothing: each example's label smoothing, (examples,) float32.
        frames: images an example.
        cut: how many examples have a text that is cut.
        visited: visits -> their texts, (b, width), where another visit may have another text; None where
            `texts` holds for all.
    """

    texts: TextBatch
    images: Callable[[Visits], np.ndarray]
    features_given: bool
    fingerprint: str
    smoothing: np.ndarray
    frames: int = 1
    cut: int = 0
    visited: Callable[[Visits], TextBatch] | None = None

    def __len__(self) -> int:
        return len(self.texts.tokens)

    def smoothed(self, smoothing: float) -> "EncodedSplit":
        """The same split with one label smoothing for every example."""
        return replace(self, smoothing=np.full(len(self), smoothing, np.float32))

    def texts_at(self, visits: Visits) -> TextBatch:
        """The texts of some visits, (b, width)."""
        return _rows(self.texts, visits.examples) if self.visited is None else self.visited(visits)

    def batch(self, visits: Visits, rows: Indices | None = None) -> Batch:
        """Return what some visits see, texts no wider than the bucket of the longest of them.

        Args:
            visits: of the whole batch, which decide the widths.
            rows: those of them that are returned; None for all.
        """
        texts = self.texts_at(visits)
        longest, suffix = np.asarray(texts.length), np.asarray(texts.length) - np.asarray(texts.prefix_length)
        width = min(bucket(int(longest.max())), texts.tokens.shape[1])
        suffix_width = min(bucket(int(suffix.max())), texts.suffix_width)
        kept = np.arange(len(visits)) if rows is None else rows
        chosen = _rows(texts, kept)
        chosen = replace(chosen, tokens=chosen.tokens[:, :width], suffix_width=suffix_width)
        mine = visits.taken(kept)
        return Batch(self.images(mine), chosen, self.smoothing[mine.examples])


def _rows(texts: TextBatch, rows: Indices) -> TextBatch:
    columns = {name: getattr(texts, name)[rows] for name in ("tokens", "prefix_length", "length")}
    return replace(texts, **columns)


def train_split(base: Base, task: Task, *, vision_adapted: bool = False) -> EncodedSplit:
    """Encode a task's training split; arguments and errors are those of `encode_split`."""
    return encode_split(
        base,
        task.split(TRAIN),
        task.text_length,
        vision_adapted=vision_adapted,
        visit=task.visit,
        frames=task.frames,
        cuts=task.cuts,
    )


def encode_split(
    base: Base,
    examples: Sequence[Example],
    text_length: int,
    *,
    vision_adapted: bool = False,
    visit: Visit = first_answer,
    frames: int = 1,
    cuts: bool = False,
) -> EncodedSplit:
    """Encode a split for training.

    Where the vision tower is frozen and the features of the split fit in memory, they are computed here,
    once; otherwise, and for videos, which start elsewhere at each visit, images are read batch by batch.

    Args:
        text_length: most tokens of prefix, separator and answer together.
        vision_adapted: whether the adapter changes the vision tower or the projector.
        visit: what is trained on at each visit of an example.
        frames: images an example.
        cuts: whether what is longer than `text_length` is cut, and not refused.

    Raises:
        Refusal: an image cannot be read, an answer is empty, or a text is longer than `text_length`.
    """
    digest = hashlib.sha256()
    varied, limit = visit is not first_answer, TextLimit(text_length, cuts)
    texts, cut = encode_texts(base, _recorded(examples, digest, every=varied), limit, every=varied)
    if cut or varied:
        digest.update(repr((text_length, cuts, visit.__qualname__)).encode())
    features: np.ndarray | None = None
    # Several processes would each compute all of them.
    alone = jax.process_count() == 1
    fits = frames == 1 and features_fit(base, len(examples))
    if alone and not vision_adapted and fits:
        features = image_features_of(base, examples, digest.update)
    return EncodedSplit(
        texts,
        _pixels_of(base, examples) if features is None else partial(_features_at, features),
        features is not None,
        digest.hexdigest(),
        np.zeros(len(examples), np.float32),
        frames,
        cut,
        partial(texts_at, base, examples, limit, visit, texts) if varied else None,
    )


def _features_at(features: np.ndarray, visits: Visits) -> np.ndarray:
    found: np.ndarray = features[visits.examples]
    return found


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

    def of_owners(visits: Visits) -> Iterator[tuple[NDArray[np.bool_], EncodedSplit, Visits]]:
        owners = np.searchsorted(starts, visits.examples, side="right") - 1
        for owner in np.unique(owners):
            yield owners == owner, splits[owner], visits.taken(owners == owner, int(starts[owner]))

    def images(visits: Visits) -> np.ndarray:
        parts = [(rows, split.images(own)) for rows, split, own in of_owners(visits)]
        _refuse_other_shapes([part for _, part in parts])
        found = np.empty((len(visits), *parts[0][1].shape[1:]), parts[0][1].dtype)
        for rows, part in parts:
            found[rows] = part
        return found

    def visited(visits: Visits) -> TextBatch:
        found = _rows(first, visits.examples)
        for rows, split, own in of_owners(visits):
            part = split.texts_at(own)
            found.tokens[rows, : part.tokens.shape[1]] = part.tokens
            found.tokens[rows, part.tokens.shape[1] :] = pad
            found.prefix_length[rows], found.length[rows] = part.prefix_length, part.length
        return found

    first = replace(
        texts[0],
        tokens=np.concatenate(padded),
        prefix_length=np.concatenate([of.prefix_length for of in texts]),
        length=np.concatenate([of.length for of in texts]),
        suffix_width=max(of.suffix_width for of in texts),
    )
    return EncodedSplit(
        first,
        images,
        splits[0].features_given,
        _together(splits),
        np.concatenate([split.smoothing for split in splits]),
        max(split.frames for split in splits),
        sum(split.cut for split in splits),
        visited if any(split.visited for split in splits) else None,
    )


def _refuse_other_shapes(parts: Sequence[np.ndarray]) -> None:
    """Refuse a batch of examples with different numbers of images: they would not see the same positions."""
    counts = sorted({part.shape[1] for part in parts})
    if len(counts) > 1:
        raise UsageRefusal(
            f"the examples learned together have {counts[0]} and {counts[-1]} images",
            "give their tasks one number of `frames`",
        )


def _together(splits: Sequence[EncodedSplit]) -> str:
    told = [(split.fingerprint, hashlib.sha256(split.smoothing.tobytes()).hexdigest()) for split in splits]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def image_features_of(
    base: Base, examples: Sequence[Example], on_pixels: Callable[[bytes], object] | None = None
) -> np.ndarray:
    """Return what the frozen vision tower makes of every example: (examples, n, d).

    Args:
        on_pixels: told the bytes of the pixels, batch by batch.
    """
    parts: list[np.ndarray] = []
    at_once = IMAGES_AT_ONCE
    while (done := sum(map(len, parts))) < len(examples):
        pixels = load_pixels(base, examples[done : done + at_once])
        at_once = max(1, IMAGES_AT_ONCE // pixels.shape[1])
        pixels = pixels[:at_once]
        if on_pixels is not None:
            on_pixels(pixels.tobytes())
        # Always the same number of rows, so that the last batch is no second compilation.
        full = np.resize(pixels, (at_once, *pixels.shape[1:]))
        parts.append(np.asarray(image_features(base.config, base.parameters, {}, 1.0, full))[: len(pixels)])
    return np.concatenate(parts)


def load_pixels(base: Base, examples: Sequence[Example], visits: Visits | None = None) -> NDArray[np.float32]:
    """Return the images of some examples, (b, n, h, w, 3) in [-1, 1], decoded on all cores.

    Args:
        visits: of each example the visit whose images are meant; None for those that scores are taken with.

    Raises:
        Refusal: one cannot be read, or has another number of images than the others; it is named by its id.
    """
    if visits is None:
        found = list(_decoders().map(partial(_pixels, base), examples))
    else:
        at = [(visits.seed, int(epoch)) for epoch in visits.epochs]
        found = list(_decoders().map(partial(_pixels, base), examples, at))
    for example, pixels in zip(examples, found, strict=True):
        if pixels.shape != found[0].shape:
            raise Refusal(
                f"example {example.id} has {len(pixels)} images, others have {len(found[0])}",
                "give the tasks learned together one number of `frames`",
            )
    return np.stack(found)


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_DECODERS), "decoder")


def _pixels(base: Base, example: Example, at: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """The images of one example, (n, h, w, 3); `at` is the seed and epoch of a visit."""
    try:
        images = example.load_images() if at is None else images_at(example, *at)
        return np.stack([base.images.pixels(image) for image in images])
    except (OSError, ValueError, SyntaxError) as fault:
        raise Refusal(
            f"the image of example {example.id} cannot be read: {fault}",
            "replace the file, or remove the example",
        ) from fault


def _pixels_of(base: Base, examples: Sequence[Example]) -> Callable[[Visits], np.ndarray]:
    return lambda visits: load_pixels(base, [examples[int(index)] for index in visits.examples], visits)


def _recorded(examples: Iterable[Example], digest: "hashlib._Hash", *, every: bool) -> Iterable[Example]:
    for example in examples:
        answers = example.answers if every else example.answers[:1]
        digest.update(repr((example.id, example.prefix, answers)).encode())
        yield example


def features_fit(base: Base, images: int) -> bool:
    """Whether the features of so many images fit in the memory that a split may have for them."""
    number = jax.tree.leaves(base.parameters["multi_modal_projector"])[0].dtype.itemsize
    each = number * base.config.vision.image_tokens * base.config.text.hidden_size
    return bool(images * each <= MEMORY_FOR_FEATURES)
