"""The language tower's own properties; its numbers are held against transformers in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.gemma import RMSNorm, embed, empty_cache, language_model, rotate, unembed


def test_rms_norm_matches_its_formula():
    norm = RMSNorm(6, 1e-6)
    norm.weight[...] = jnp.arange(6.0)
    x = np.random.default_rng(0).normal(3, 2, (4, 6)).astype(np.float32)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + np.arange(6))
    np.testing.assert_allclose(norm(x), expected, rtol=1e-5)


def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in range(2))

    def score(at: int, other: int) -> float:
        turned = rotate(q, jnp.array([[at]]), 1e4) * rotate(k, jnp.array([[other]]), 1e4)
        return float(turned.sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-4)
    np.testing.assert_allclose(
        jnp.linalg.norm(rotate(q, jnp.array([[77]]), 1e4)), jnp.linalg.norm(q), rtol=1e-6
    )


@pytest.mark.parametrize(("width", "factor"), [(2048, 45.25), (2304, 48.0)])
def test_the_embedding_factor_is_rounded_to_bf16(width, factor):
    rows = {"embed_tokens": {"weight": jnp.ones((2, width), jnp.bfloat16)}}
    assert float(embed(rows, jnp.array([[1]]))[0, 0, 0]) == factor


def test_logits_are_float32_and_tied_to_the_rows(config, params):
    model = params["language_model"]
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 16))
    logits = unembed(config.text, model, hidden)
    np.testing.assert_allclose(logits, hidden @ model["embed_tokens"]["weight"].T, atol=1e-5)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model)
    assert unembed(config.text, low, hidden.astype(jnp.bfloat16)).dtype == jnp.float32


def test_reading_in_two_pieces_through_the_cache_equals_reading_at_once(config, params, lora):
    model, tower = params["language_model"], lora["language_model"]
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    causal = jnp.tril(jnp.ones((5, 5), bool))[None]
    whole, no_cache = language_model(config.text, model, tower, 0.5, x, jnp.arange(5)[None], causal)
    assert no_cache is None

    slots = jnp.arange(7)
    cache = empty_cache(config.text, 2, 7, x.dtype)
    mask = (slots <= jnp.arange(3)[:, None])[None].repeat(2, 0)
    first, cache = language_model(
        config.text, model, tower, 0.5, x[:, :3], jnp.arange(3)[None], mask, cache, 0
    )
    mask = (slots <= jnp.arange(3, 5)[:, None])[None].repeat(2, 0)
    rest, _ = language_model(config.text, model, tower, 0.5, x[:, 3:], jnp.arange(3, 5)[None], mask, cache, 3)
    np.testing.assert_allclose(jnp.concatenate([first, rest], axis=1), whole, atol=1e-5)
