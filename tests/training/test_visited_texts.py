"""What is trained on at each visit: sampled answers, options in another order, frames, texts that are cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.models.base import Base
from pamctl.models.text import TextBatch
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Example, open_task
from pamctl.tasks.task import Text
from pamctl.tasks.visits import sampled_answer
from pamctl.training.batches import encode_split, image_features_of, joined
from pamctl.training.epochs import Visits
from pamctl.training.texts import TextLimit, encode_texts

LETTERS = tuple("abcdefgh")


@pytest.fixture
def examples(inputs: Path) -> list[Example]:
    return list(open_task(inputs / "colours.jsonl").split("train"))


def ids(texts: TextBatch, row: int) -> list[int]:
    return [int(token) for token in texts.tokens[row, : texts.length[row]]]


def whole(base: Base, text: Text) -> list[int]:
    return [*base.tokenizer.encode_prefix(text.prefix), *base.tokenizer.encode_suffix(text.suffix)]


def test_each_visit_has_the_answer_that_is_drawn_for_it(base: Base, examples: list[Example]) -> None:
    asked = [replace(example, answers=LETTERS) for example in examples]
    split = encode_split(base, asked, 16, visit=sampled_answer)
    visits = Visits(5, np.array([0, 1, 0]), np.array([0, 3, 7]))
    texts = split.batch(visits).texts
    for row, (index, epoch) in enumerate([(0, 0), (1, 3), (0, 7)]):
        assert ids(texts, row) == whole(base, sampled_answer(asked[index], 5, epoch))
    assert ids(texts, 0) != ids(texts, 2)
    np.testing.assert_array_equal(split.batch(visits, np.array([2])).texts.tokens[0], texts.tokens[2])


def test_every_answer_s_length_is_reckoned_with_beforehand(base: Base, examples: list[Example]) -> None:
    long = replace(examples[0], id="x", answers=("a", "b c d e f g h", " "))
    longest = whole(base, Text(long.prefix, "b c d e f g h"))
    with pytest.raises(Refusal, match="example x has"):
        encode_split(base, [long], len(longest) - 1, visit=sampled_answer)
    split = encode_split(base, [long], 32, visit=sampled_answer)
    drawn = {tuple(ids(split.texts_at(Visits(0, np.array([0]), np.array([epoch]))), 0)) for epoch in (0, 1)}
    assert drawn == {tuple(whole(base, Text(long.prefix, answer))) for answer in ("a", "b c d e f g h")}


def turned(example: Example, seed: int, epoch: int) -> Text:
    """A prompt that grows by a token with each epoch."""
    return Text(example.prefix + " a" * epoch, example.suffix)


def test_a_prompt_may_be_longer_at_another_visit(base: Base, examples: list[Example]) -> None:
    split = encode_split(base, examples, 16, visit=turned)
    length = len(whole(base, turned(examples[0], 0, 0)))
    for epoch in (0, 16 - length):
        texts = split.texts_at(Visits(0, np.array([0]), np.array([epoch])))
        assert ids(texts, 0) == whole(base, turned(examples[0], 0, epoch))
    with pytest.raises(Refusal, match="more than the task's text length of 16"):
        split.texts_at(Visits(0, np.array([0]), np.array([17 - length])))


def test_fingerprints_tell_how_answers_are_drawn(base: Base, examples: list[Example]) -> None:
    asked = [replace(example, answers=LETTERS) for example in examples]
    fewer = [*asked[:-1], replace(asked[-1], answers=LETTERS[:-1])]
    prints = {
        encode_split(base, asked, 16).fingerprint,
        encode_split(base, asked, 16, visit=sampled_answer).fingerprint,
        encode_split(base, asked, 16, visit=turned).fingerprint,
        encode_split(base, fewer, 16, visit=turned).fingerprint,
    }
    assert len(prints) == 4


def test_tasks_joined_keep_their_visits(base: Base, examples: list[Example]) -> None:
    asked = [replace(example, answers=LETTERS) for example in examples[:2]]
    sampled, plain = encode_split(base, asked, 16, visit=sampled_answer), encode_split(base, examples, 32)
    both = joined([sampled, plain], base.config.pad_token_id)
    visits = Visits(1, np.array([1, 2, 0]), np.array([6, 6, 2]))
    texts = both.batch(visits).texts
    assert ids(texts, 0) == whole(base, sampled_answer(asked[1], 1, 6))
    assert ids(texts, 1) == whole(base, Text(examples[0].prefix, examples[0].suffix))
    assert ids(texts, 2) == whole(base, sampled_answer(asked[0], 1, 2))


@pytest.mark.parametrize(("limit", "prompt", "answer"), [(9, 6, 3), (7, 6, 1), (6, 5, 1), (3, 2, 1)])
def test_the_answer_is_cut_first_then_the_prompt_before_its_end(
    base: Base, examples: list[Example], limit: int, prompt: int, answer: int
) -> None:
    example = replace(examples[0], prefix="a b c d", answers=("e f g",))
    prefix, suffix = base.tokenizer.encode_prefix("a b c d"), base.tokenizer.encode_suffix("e f g")
    assert (len(prefix), len(suffix)) == (6, 4)
    texts, cut = encode_texts(base, [example], TextLimit(limit, cuts=True))
    assert cut == 1
    assert ids(texts, 0) == [*prefix[: prompt - 1], prefix[-1], *suffix[:answer]]
    assert texts.prefix_length[0] == prompt
    untouched, cut = encode_texts(base, [example], TextLimit(10, cuts=True))
    assert (ids(untouched, 0), cut) == (prefix + suffix, 0)


def film(count: int, shade: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (shade, 20 * frame, 0)) for frame in range(count)]


class Film:
    """A clip of two frames, whose colour tells where it was started."""

    def __call__(self) -> list[Image.Image]:
        return film(2, 0)

    def at(self, start: float) -> list[Image.Image]:
        return film(2, 1 + int(start * 254))


def test_frames_of_a_clip_start_elsewhere_at_each_visit(base: Base) -> None:
    clips = [Example(str(number), "a", ("b",), Film()) for number in range(2)]
    split = encode_split(base, clips, 16, frames=2)
    assert not split.features_given
    first, again, later = (
        split.batch(Visits(0, np.array([0, 1]), np.array([epoch] * 2))).images for epoch in (0, 0, 1)
    )
    assert first.shape[:2] == (2, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], later[0])
    scored = image_features_of(base, clips)
    assert scored.shape[1] == 2 * base.config.vision.image_tokens


def test_examples_with_other_numbers_of_frames_are_not_learned_together(base: Base) -> None:
    two, three = (Example("v", "a", ("b",), lambda count=count: film(count, 0)) for count in (2, 3))
    both = joined(
        [encode_split(base, [each], 16, frames=count) for each, count in ((two, 2), (three, 3))],
        base.config.pad_token_id,
    )
    with pytest.raises(UsageRefusal, match="have 2 and 3 images"):
        both.batch(Visits.first([0, 1]))
