"""Greedy decoding: the prefix once, then one token at a time from cached keys and values."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pamctl.models import gemma
from pamctl.models.config import PaliGemmaConfig, TextConfig
from pamctl.models.paligemma import Lora
from pamctl.models.trees import Tree


@partial(jax.jit, static_argnums=0, static_argnames="max_new_tokens")
def greedy(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    tokens: jax.Array,
    prefix_length: jax.Array,
    *,
    max_new_tokens: int,
) -> jax.Array:
    """Return the likeliest next tokens of each example, one after the other.

    Args:
        features: (b, n, d) from `image_features`.
        tokens: (b, t) prefixes, padded on the right; what stands after a prefix is not looked at.
        prefix_length: (b,), <bos> and "\\n" counted.

    Returns:
        (b, max_new_tokens) int32; after <eos> padding. Stops early once every example has ended.
    """
    model, tower = params["language_model"], lora.get("language_model", {})
    text = gemma.embed(model, tokens)
    prompt = jnp.concatenate([features.astype(text.dtype), text], axis=1)
    known = features.shape[1] + prefix_length
    # Slots of the cache: images, the prefix with its padding, then what is generated.
    start = prompt.shape[1]
    slots = jnp.arange(start + max_new_tokens - 1)
    seen = slots < known[:, None]
    places = jnp.where(slots < start, slots, known[:, None] + slots - start)

    run = partial(gemma.language_model, config.text, model, tower, scale)

    def extend(state: _State) -> _State:
        slot = start + state.written - 1
        position = (known + state.written - 1)[:, None]
        mask = (seen | ((slots >= start) & (slots <= slot)))[:, None]
        near = _near(config.text, mask, position[..., None] - places[:, None])
        last = jax.lax.dynamic_index_in_dim(state.answer, state.written - 1, axis=1)
        hidden, cache = run(gemma.embed(model, last), position, mask, state.cache, slot, near)
        token = jnp.where(state.ended, config.pad_token_id, _likeliest(config, model, hidden[:, 0]))
        answer = jax.lax.dynamic_update_index_in_dim(state.answer, token, state.written, axis=1)
        return _State(state.written + 1, answer, state.ended | (token == config.eos_token_id), cache)

    everyone = jnp.broadcast_to(seen[:, None], (len(tokens), start, slots.size))
    empty = gemma.empty_cache(config.text, len(tokens), slots.size, prompt.dtype)
    hidden, cache = run(prompt, jnp.arange(start)[None], everyone, empty, 0)
    at_end = jnp.take_along_axis(hidden, known[:, None, None] - 1, axis=1)[:, 0]
    first = _likeliest(config, model, at_end)
    answer = jnp.full((len(tokens), max_new_tokens), config.pad_token_id, jnp.int32).at[:, 0].set(first)
    state = _State(jnp.int32(1), answer, first == config.eos_token_id, cache)
    return jax.lax.while_loop(
        lambda state: (state.written < max_new_tokens) & ~state.ended.all(), extend, state
    ).answer


class _State(NamedTuple):
    """Between two tokens: how many are written, the answers so far, who has ended, the cache."""

    written: jax.Array
    answer: jax.Array
    ended: jax.Array
    cache: gemma.Cache | None


def _near(config: TextConfig, mask: jax.Array, distance: jax.Array) -> jax.Array | None:
    """What a new token sees in a layer with a sliding window; None where the window holds every slot."""
    if config.sliding_window is None or mask.shape[-1] <= config.sliding_window:
        return None
    return mask & (distance < config.sliding_window)


def _likeliest(config: PaliGemmaConfig, model: Tree, hidden: jax.Array) -> jax.Array:
    return jnp.argmax(gemma.unembed(config.text, model, hidden), axis=-1).astype(jnp.int32)
