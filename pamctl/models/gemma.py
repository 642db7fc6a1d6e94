"""The language tower: Gemma 1 over embedded tokens, with or without a cache of keys and values."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pamctl.models.attention import attend
from pamctl.models.config import TextConfig
from pamctl.models.projection import LoraLayer, Projection
from pamctl.models.trees import Tree, initial_stack, initial_tree, module, products_kept

Cache = tuple[jax.Array, jax.Array]
"""Keys and values of earlier slots: (layers, b, slots, kv_heads, head_dim) each; one layer's in a block."""


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
        slot: jax.Array | int,
    ) -> tuple[jax.Array, Cache | None]:
        """Map x (b, t, d) to (b, t, d); with a cache, its t keys and values are written from `slot` on."""
        heads = (*x.shape[:2], -1, self.config.head_dim)
        q = self.q_proj(x, lora.get("q_proj"), scale).reshape(heads)
        k = self.k_proj(x, lora.get("k_proj"), scale).reshape(heads)
        v = self.v_proj(x, lora.get("v_proj"), scale).reshape(heads)
        q = rotate(q, positions, self.config.rope_theta) * self.config.head_dim**-0.5
        k = rotate(k, positions, self.config.rope_theta)
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache[0], k, slot, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(cache[1], v, slot, axis=1)
            cache = (k, v)
        return self.o_proj(attend(q, k, v, mask), lora.get("o_proj"), scale), cache


class FeedForward(nnx.Module):
    """down(gelu(gate(x)) * up(x)), tanh form."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs) -> None:
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size, bias=False, rngs=rngs)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size, bias=False, rngs=rngs)
        self.down_proj = Projection(config.intermediate_size, config.hidden_size, bias=False, rngs=rngs)

    def __call__(self, x: jax.Array, lora: LoraLayer, scale: jax.Array | float) -> jax.Array:
        """Map x (b, t, d) to (b, t, d)."""
        gate = jax.nn.gelu(self.gate_proj(x, lora.get("gate_proj"), scale), approximate=True)
        return self.down_proj(
            gate * self.up_proj(x, lora.get("up_proj"), scale), lora.get("down_proj"), scale
        )


class Block(nnx.Module):
    """One layer; in Gemma 1 `post_attention_layernorm` is the norm before the feed-forward."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs) -> None:
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, rngs)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        lora: LoraLayer,
        scale: jax.Array | float,
        positions: jax.Array,
        mask: jax.Array,
        cache: Cache | None,
        slot: jax.Array | int,
    ) -> tuple[jax.Array, Cache | None]:
        """Map x (b, t, d) to (b, t, d) and the layer's cache to the cache with these t tokens in it."""
        normed = self.input_layernorm(x)
        attended, cache = self.self_attn(normed, lora, scale, positions, mask, cache, slot)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x), lora, scale), cache


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
    return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)


def embed(params: Tree, tokens: jax.Array) -> jax.Array:
    """Map tokens (b, t) to their rows times sqrt(d), the factor rounded to the rows' dtype: (b, t, d)."""
    rows = params["embed_tokens"]["weight"]
    return rows[tokens] * jnp.asarray(rows.shape[1] ** 0.5, rows.dtype)


def unembed(params: Tree, hidden: jax.Array) -> jax.Array:
    """Map normed hidden states (..., d) to float32 logits (..., vocabulary) with the tied rows."""
    rows = params["embed_tokens"]["weight"]
    flat = hidden.reshape(-1, hidden.shape[-1])
    logits = jnp.dot(flat, rows.T, preferred_element_type=jnp.float32)
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
) -> tuple[jax.Array, Cache | None]:
    """Map embedded tokens to normed hidden states.

    Args:
        lora: factors of all layers, stacked as the parameters are.
        x: (b, t, d).
        positions: (b, t) or (1, t).
        mask: (b, t, s), True where a token sees a key; s is t, or the cache's slots.
        cache: keys and values of all layers; those of x are written from `slot` on.

    Returns:
        (b, t, d) and the new cache (None without one).
    """

    def layer(x: jax.Array, stacked: tuple[Tree, LoraLayer, Cache | None]) -> tuple[jax.Array, Cache | None]:
        params, factors, layer_cache = stacked
        block = module(partial(Block, config), params)
        return block(x, factors, scale, positions, mask, layer_cache, slot)

    x, cache = jax.lax.scan(products_kept(layer), x, (params["layers"], lora, cache))
    return module(partial(_norm, config), params["norm"])(x), cache


def _norm(config: TextConfig, rngs: nnx.Rngs) -> RMSNorm:
    return RMSNorm(config.hidden_size, config.rms_norm_eps)
