"""How texts lie in a batch."""

import jax
import numpy as np
import pytest

from pamctl.models.text import text_batch
from pamctl.refusal import Refusal


def test_prefix_then_suffix_then_padding():
    batch = text_batch([([2, 9, 5], [7, 1]), ([2, 5], [1])], text_length=6, pad_token_id=3)
    np.testing.assert_array_equal(batch.tokens, [[2, 9, 5, 7, 1, 3], [2, 5, 1, 3, 3, 3]])
    np.testing.assert_array_equal(batch.prefix_length, [3, 2])
    np.testing.assert_array_equal(batch.length, [5, 3])
    assert batch.suffix_width == 2


def test_the_suffix_width_is_static_and_the_arrays_are_not():
    batch = text_batch([([2], [1])], text_length=4, suffix_width=3)
    assert len(jax.tree.leaves(batch)) == 3
    assert jax.jit(lambda batch: np.int32(batch.suffix_width))(batch) == 3


def test_a_text_that_does_not_fit_is_refused_with_its_lengths():
    with pytest.raises(
        Refusal, match="text 1 of the batch has 4 prefix and 2 suffix tokens, more than the text"
    ):
        text_batch([([2], [1]), ([2, 3, 4, 5], [7, 1])], text_length=5)
    with pytest.raises(Refusal, match="has 3 suffix tokens, more than 2"):
        text_batch([([2], [3, 4, 1])], text_length=8, suffix_width=2)
