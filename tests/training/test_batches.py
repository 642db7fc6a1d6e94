"""Splits made ready for training: widths, features, fingerprints, and examples that cannot be used."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.models.base import Base
from pamctl.refusal import Refusal
from pamctl.tasks import Example, open_task
from pamctl.training import batches
from pamctl.training.batches import encode_split, image_features_of
from pamctl.training.epochs import Visits


@pytest.fixture
def examples(inputs: Path) -> list[Example]:
    return list(open_task(inputs / "colours.jsonl").split("train"))


def test_texts_are_prefix_separator_suffix_in_columns_of_eight(base: Base, examples: list[Example]) -> None:
    texts = encode_split(base, examples, 16).texts
    assert texts.tokens.shape == (len(examples), 8)
    assert texts.suffix_width == 8
    tokens = base.tokenizer.encode_prefix(examples[0].prefix) + base.tokenizer.encode_suffix(
        examples[0].suffix
    )
    np.testing.assert_array_equal(texts.tokens[0, : len(tokens)], tokens)
    assert (texts.length[0], texts.prefix_length[0]) == (len(tokens), len(tokens) - 2)


def test_a_batch_is_the_chosen_rows(base: Base, examples: list[Example]) -> None:
    split = encode_split(base, examples, 16)
    batch = replace(split, smoothing=np.arange(len(split)) / 100).batch(Visits.first([3, 1, 3]))
    np.testing.assert_array_equal(batch.images, image_features_of(base, examples)[[3, 1, 3]])
    np.testing.assert_array_equal(batch.texts.tokens, np.asarray(split.texts.tokens)[[3, 1, 3]])
    np.testing.assert_array_equal(batch.smoothing, [0.03, 0.01, 0.03])


def test_features_do_not_depend_on_how_many_are_computed_at_once(
    base: Base, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = image_features_of(base, examples)
    monkeypatch.setattr(batches, "IMAGES_AT_ONCE", 4)
    # another batch is summed in another order: on some processors the last bits of float32 differ by 1.3e-6
    np.testing.assert_allclose(image_features_of(base, examples), whole, atol=4e-6)


def test_where_features_do_not_fit_in_memory_images_are_read_batch_by_batch(
    base: Base, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MEMORY_FOR_FEATURES", 0)
    pixels = encode_split(base, examples, 16).batch(Visits.first([2, 0])).images
    assert pixels.shape == (2, 1, 8, 8, 3)
    np.testing.assert_array_equal(pixels[1, 0], base.images.pixels(examples[0].load_images()[0]))


def test_a_batch_is_as_wide_as_its_longest_text_wherever_its_rows_go(
    base: Base, examples: list[Example]
) -> None:
    long = replace(examples[1], prefix="a b c d e f g h a", answers=("a b c d e f g h",))
    split = encode_split(base, [examples[0], long, *examples[2:]], 32)
    assert split.texts.tokens.shape[1] == 24
    texts = split.batch(Visits.first([2, 0])).texts
    assert (texts.tokens.shape, texts.suffix_width) == ((2, 8), 8)
    pixels, texts, smoothing = split.batch(Visits.first([2, 1, 0]), rows=np.array([2]))
    assert (texts.tokens.shape, texts.suffix_width, len(pixels)) == ((1, 24), 16, 1)
    assert smoothing.shape == (1,)
    np.testing.assert_array_equal(texts.tokens, np.asarray(split.texts.tokens)[[0]])


def test_an_adapted_vision_tower_gets_pixels(base: Base, examples: list[Example]) -> None:
    pixels = encode_split(base, examples, 16, vision_adapted=True).batch(Visits.first([1])).images
    assert pixels.shape == (1, 1, 8, 8, 3)
    np.testing.assert_array_equal(pixels[0, 0], base.images.pixels(examples[1].load_images()[0]))


def _with_id(example: Example) -> Example:
    return replace(example, id="other")


def _with_prefix(example: Example) -> Example:
    return replace(example, prefix="h h")


def _with_answer(example: Example) -> Example:
    return replace(example, answers=("h h",))


def _with_image(example: Example) -> Example:
    return replace(example, load_images=lambda: [Image.new("RGB", (3, 3))])


@pytest.mark.parametrize("changed", [_with_id, _with_prefix, _with_answer, _with_image])
def test_the_fingerprint_tells_every_change(
    base: Base, examples: list[Example], changed: Callable[[Example], Example]
) -> None:
    before = encode_split(base, examples, 16).fingerprint
    assert encode_split(base, examples, 16).fingerprint == before
    assert encode_split(base, [*examples[:-1], changed(examples[-1])], 16).fingerprint != before


def _broken() -> Image.Image:
    raise OSError("truncated file")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"answers": ("  ",)}, "example x has an empty answer"),
        ({"answers": ()}, "example x has an empty answer"),
        ({"prefix": "a b c d e f g h a b c d"}, "example x has 14 prompt and 2 answer tokens.* 15"),
        ({"load_images": _broken}, "the image of example x cannot be read: truncated file"),
    ],
)
def test_an_example_that_cannot_be_used_is_named(
    base: Base, examples: list[Example], fault: dict[str, object], told: str
) -> None:
    with pytest.raises(Refusal, match=told):
        encode_split(base, [examples[0], replace(examples[1], id="x", **fault)], 15)  # type: ignore[arg-type]
