"""The language tower: Gemma 1 or 2 over embedded tokens, with or without a cache of keys and values."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pamctl.models.attention import attend
from pamctl.models.config import TextConfig
from pamctl.models.projection import LoraLayer, Projection, projected
from pamctl.models.trees import Remat, Tree, initial_stack, initial_tree, module, over_layers


class Cache(NamedTuple):
    """Keys and values of earlier slots, (layers, b, slots, kv_heads, head_dim) each."""

    keys: jax.Array
    values: jax.Array


class Place(NamedTuple):
    """Where in a cache a block writes: its layer, and the slot of the first token."""

    layer: jax.Array
    slot: jax.Array | int


class RMSNorm(nnx.Module):
    """x / rms(x) * (1 + weight), in float32."""

    def __init__(self, width: int, eps: float) -> None:
        self.weight = nnx.Param(jnp.zeros(width))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (..., width) to the same shape and dtype."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return (wide * (1.0 + self.weight[...].astype(jnp.float32))).astype(x.dtype)


class Attention(nnx.Module):
    """Rotary attention; `num_key_value_heads` key heads serve all query heads."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.hidden_size
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = Projection(width, queries, bias=False, rngs=rngs)
        self.k_proj = Projection(width, keys, bias=False, rngs=rngs)
        self.v_proj = Projection(width, keys, bias=False, rngs=rngs)
        self.o_proj = Projection(queries, width, bias=False, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        lora: LoraLayer,
        scale: jax.Array | float,
        positions: jax.Array,
        mask: jax.Array,
        cache: Cache | None,
        place: Place,
    ) -> tuple[jax.Array, Cache | None]:
        """Map x (b, t, d) to (b, t, d); with a cache, its t keys and values are written at `place`."""
        heads = (*x.shape[:2], -1, self.config.head_dim)
        maps = [(getattr(self, kind), lora.get(kind)) for kind in ("q_proj", "k_proj", "v_proj")]
        q, k, v = (y.reshape(heads) for y in projected(x, maps, scale))
        q = rotate(q, positions, self.config.rope_theta) * self.config.query_scale
        k = rotate(k, positions, self.config.rope_theta)
        if cache is not None:
            cache = remember(cache, place, k, v)
            k, v = cache.keys[place.layer], cache.values[place.layer]
        attended = attend(q, k, v, mask, self.config.attn_logit_softcapping)
        return self.o_proj(attended, lora.get("o_proj"), scale), cache


class FeedForward(nnx.Module):
    """down(gelu(gate(x)) * up(x)), tanh form."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs) -> None:
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size, bias=False, rngs=rngs)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size, bias=False, rngs=rngs)
        self.down_proj = Projection(config.intermediate_size, config.hidden_size, bias=False, rngs=rngs)

    def __call__(self, x: jax.Array, lora: LoraLayer, scale: jax.Array | float) -> jax.Array:
        """Map x (b, t, d) to (b, t, d)."""
        maps = [(getattr(self, kind), lora.get(kind)) for kind in ("gate_proj", "up_proj")]
        gate, up = projected(x, maps, scale)
        return self.down_proj(jax.nn.gelu(gate, approximate=True) * up, lora.get("down_proj"), scale)


class Block(nnx.Module):
    """One layer.

    `post_attention_layernorm` is the norm before the feed-forward in Gemma 1, and in Gemma 2 the norm of what
    attention returns.
    """

    def __init__(self, config: TextConfig, rngs: nnx.Rngs) -> None:
        self.generation = config.generation
        self.input_layernorm = _norm(config, rngs)
        self.self_attn = Attention(config, rngs)
        self.post_attention_layernorm = _norm(config, rngs)
        self.mlp = FeedForward(config, rngs)
        if config.generation == 2:
            self.pre_feedforward_layernorm = _norm(config, rngs)
            self.post_feedforward_layernorm = _norm(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        lora: LoraLayer,
        scale: jax.Array | float,
        positions: jax.Array,
        mask: jax.Array,
        cache: Cache | None,
        place: Place,
    ) -> tuple[jax.Array, Cache | None]:
        """Map x (b, t, d) to (b, t, d) and the cache to the cache with these t tokens in it."""
        normed = self.input_layernorm(x)
        attended, cache = self.self_attn(normed, lora, scale, positions, mask, cache, place)
        if self.generation == 1:
            x = x + attended
            return x + self.mlp(self.post_attention_layernorm(x), lora, scale), cache
        x = x + self.post_attention_layernorm(attended)
        fed = self.mlp(self.pre_feedforward_layernorm(x), lora, scale)
        return x + self.post_feedforward_layernorm(fed), cache


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Turn x (b, t, heads, head_dim) by its positions (b, t): RoPE with the two halves as pairs."""
    half = x.shape[-1] // 2
    frequencies = 1.0 / theta ** (jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    # transformers rounds the sines to the activations' dtype before use
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def initial_language_model(config: TextConfig, key: jax.Array) -> Tree:
    """Return random float32 parameters, those of the layers stacked on a leading axis."""
    outer, inner = jax.random.split(key)
    rows = jax.random.normal(outer, (config.vocab_size, config.hidden_size)) * config.hidden_size**-0.5
    return {
        "embed_tokens": {"weight": rows},
        "layers": initial_stack(partial(Block, config), inner, config.num_hidden_layers),
        "norm": initial_tree(partial(_norm, config), outer),
    }


def empty_cache(config: TextConfig, batch: int, slots: int, dtype: Any) -> Cache:
    """Return a cache of `slots` slots that hold nothing yet; the mask must hide those not written."""
    shape = (config.num_hidden_layers, batch, slots, config.num_key_value_heads, config.head_dim)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def remember(cache: Cache, place: Place, keys: jax.Array, values: jax.Array) -> Cache:
    """Return the cache with one layer's keys and values (b, t, kv_heads, head_dim) written at `place`.

    The whole cache goes from layer to layer, so that only what is new is written.
    """
    start = (place.layer, 0, place.slot, 0, 0)
    return Cache(
        jax.lax.dynamic_update_slice(cache.keys, keys[None], start),
        jax.lax.dynamic_update_slice(cache.values, values[None], start),
    )


def embed(params: Tree, tokens: jax.Array) -> jax.Array:
    """Map tokens (b, t) to their rows times sqrt(d), the factor rounded to the rows' dtype: (b, t, d)."""
    rows = params["embed_tokens"]["weight"]
    return rows[tokens] * jnp.asarray(rows.shape[1] ** 0.5, rows.dtype)


def unembed(config: TextConfig, params: Tree, hidden: jax.Array) -> jax.Array:
    """Map normed hidden states (..., d) to float32 logits (..., vocabulary) with the tied rows.

    The logits are capped where the checkpoint's config.json says so, as transformers 5 does; transformers 4
    and the training of the released PaliGemma 2 leave that out.
    """
    rows = params["embed_tokens"]["weight"]
    flat = hidden.reshape(-1, hidden.shape[-1])
    logits = jnp.dot(flat, rows.T, preferred_element_type=jnp.float32)
    if config.final_logit_softcapping is not None:
        logits = config.final_logit_softcapping * jnp.tanh(logits / config.final_logit_softcapping)
    return logits.reshape(*hidden.shape[:-1], -1)


def language_model(
    config: TextConfig,
    params: Tree,
    lora: LoraLayer,
    scale: jax.Array | float,
    x: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    cache: Cache | None = None,
    slot: jax.Array | int = 0,
    near: jax.Array | None = None,
    remat: Remat = "elementwise",
) -> tuple[jax.Array, Cache | None]:
    """Map embedded tokens to normed hidden states.

    Args:
        lora: factors of all layers, stacked as the parameters are.
        x: (b, t, d).
        positions: (b, t) or (1, t).
        mask: (b, t, s), True where a token sees a key; s is t, or the cache's slots.
        cache: keys and values of all layers; those of x are written from `slot` on.
        near: the mask of the layers with a sliding window, those of even number, if it differs from `mask`.

    Returns:
        (b, t, d) and the new cache (None without one).
    """

    def layer(
        carried: tuple[jax.Array, Cache | None], part: tuple[jax.Array, Tree, LoraLayer]
    ) -> tuple[jax.Array, Cache | None]:
        (x, cache), (number, params, factors) = carried, part
        seen = mask if near is None else jnp.where(number % 2 == 0, near, mask)
        block = module(partial(Block, config), params)
        return block(x, factors, scale, positions, seen, cache, Place(number, slot))

    numbers = jnp.arange(config.num_hidden_layers)
    x, cache = over_layers(layer, (x, cache), (numbers, params["layers"], lora), remat)
    return module(partial(_norm, config), params["norm"])(x), cache


def _norm(config: TextConfig, rngs: nnx.Rngs) -> RMSNorm:
    return RMSNorm(config.hidden_size, config.rms_norm_eps)
