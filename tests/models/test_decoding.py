"""Greedy decoding against running the whole text again for every token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.decoding import greedy
from pamctl.models.paligemma import forward_logits
from pamctl.models.text import text_batch

PREFIXES = [[2, 9, 8, 5], [2, 10, 5], [2, 5]]
EOS, NEW = 1, 6


def by_running_again(config, params, lora, features, prefix: list[int]) -> list[int]:
    suffix: list[int] = []
    while len(suffix) < NEW and suffix[-1:] != [EOS]:
        batch = text_batch([(prefix, suffix)], 12, 8)
        logits = forward_logits(config, params, lora, 0.7, features, batch)[0]
        suffix.append(int(logits[features.shape[1] + len(prefix) + len(suffix) - 1].argmax()))
    return suffix + [0] * (NEW - len(suffix))


@pytest.fixture(scope="module")
def prefixes():
    return text_batch([(prefix, []) for prefix in PREFIXES], 6, 1)


def test_equals_running_the_whole_text_again(config, params, lora, features, prefixes):
    found = greedy(
        config, params, lora, 0.7, features, prefixes.tokens, prefixes.prefix_length, max_new_tokens=NEW
    )
    expected = [
        by_running_again(config, params, lora, features[row : row + 1], prefix)
        for row, prefix in enumerate(PREFIXES)
    ]
    assert found.tolist() == expected
    assert found.dtype == jnp.int32


def test_what_stands_after_a_prefix_is_not_looked_at(config, params, features, prefixes):
    run = lambda tokens: greedy(  # noqa: E731
        config, params, {}, 1.0, features, tokens, prefixes.prefix_length, max_new_tokens=NEW
    )
    filled = np.where(np.arange(6) < prefixes.prefix_length[:, None], prefixes.tokens, 33)
    np.testing.assert_array_equal(run(filled), run(prefixes.tokens))


def test_after_eos_comes_padding(config, params, features, prefixes):
    """The embedding is turned so that one example ends after its second token."""
    args = (features, prefixes.tokens, prefixes.prefix_length)
    free = np.asarray(greedy(config, params, {}, 1.0, *args, max_new_tokens=NEW))
    swapped = jax.tree.map(lambda leaf: leaf, params)
    second = int(free[0, 1])
    rows = swapped["language_model"]["embed_tokens"]["weight"]
    swapped["language_model"]["embed_tokens"]["weight"] = rows.at[EOS].set(rows[second] * 1.001)
    ended = np.asarray(greedy(config, swapped, {}, 1.0, *args, max_new_tokens=NEW))
    row = ended[0].tolist()
    assert EOS in row
    assert set(row[row.index(EOS) + 1 :]) <= {0}


def test_one_token_is_the_prefill_alone(config, params, features, prefixes):
    args = (config, params, {}, 1.0, features, prefixes.tokens, prefixes.prefix_length)
    one = greedy(*args, max_new_tokens=1)
    np.testing.assert_array_equal(one, greedy(*args, max_new_tokens=NEW)[:, :1])
