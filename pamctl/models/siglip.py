"""The vision tower: SigLIP without its pooling head, images to one vector a patch."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from pamctl.models.attention import attend
from pamctl.models.config import VisionConfig
from pamctl.models.projection import LoraLayer, Projection, projected
from pamctl.models.trees import Remat, Tree, initial_stack, initial_tree, module, over_layers


class LayerNorm(nnx.Module):
    """Normalise the last axis in float32, then scale and shift."""

    def __init__(self, width: int, eps: float) -> None:
        self.weight = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (..., width) to the same shape and dtype."""
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return (wide * self.weight[...] + self.bias[...]).astype(x.dtype)


class VisionAttention(nnx.Module):
    """Every patch sees every patch."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.hidden_size
        self.q_proj = Projection(width, width, bias=True, rngs=rngs)
        self.k_proj = Projection(width, width, bias=True, rngs=rngs)
        self.v_proj = Projection(width, width, bias=True, rngs=rngs)
        self.out_proj = Projection(width, width, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, lora: LoraLayer, scale: jax.Array | float) -> jax.Array:
        """Map x (b, t, d) to (b, t, d)."""
        heads = (*x.shape[:2], self.config.num_attention_heads, self.config.head_dim)
        maps = [(getattr(self, kind), lora.get(kind)) for kind in ("q_proj", "k_proj", "v_proj")]
        q, k, v = (y.reshape(heads) for y in projected(x, maps, scale))
        return self.out_proj(attend(q * self.config.head_dim**-0.5, k, v), lora.get("out_proj"), scale)


class VisionFeedForward(nnx.Module):
    """fc2(gelu(fc1(x))), tanh form."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.fc1 = Projection(config.hidden_size, config.intermediate_size, bias=True, rngs=rngs)
        self.fc2 = Projection(config.intermediate_size, config.hidden_size, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, lora: LoraLayer, scale: jax.Array | float) -> jax.Array:
        """Map x (b, t, d) to (b, t, d)."""
        hidden = jax.nn.gelu(self.fc1(x, lora.get("fc1"), scale), approximate=True)
        return self.fc2(hidden, lora.get("fc2"), scale)


class VisionBlock(nnx.Module):
    """One layer: attention and feed-forward, each behind its norm."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = VisionAttention(config, rngs)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = VisionFeedForward(config, rngs)

    def __call__(self, x: jax.Array, lora: LoraLayer, scale: jax.Array | float) -> jax.Array:
        """Map x (b, t, d) to (b, t, d)."""
        x = x + self.self_attn(self.layer_norm1(x), lora, scale)
        return x + self.mlp(self.layer_norm2(x), lora, scale)


class VisionEmbeddings(nnx.Module):
    """Patches to vectors, plus a learned vector for each place."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.patch_size = config.patch_size
        self.patch_embedding = Projection(3 * config.patch_size**2, config.hidden_size, bias=True, rngs=rngs)
        places = jax.random.normal(rngs.params(), (config.image_tokens, config.hidden_size))
        self.position_embedding = Places(places * config.hidden_size**-0.5)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Map pixels (b, h, w, 3) to (b, patches, d), row by row, in the parameters' dtype."""
        batch, height, width, channels = pixels.shape
        p = self.patch_size
        patches = pixels.reshape(batch, height // p, p, width // p, p, channels)
        patches = patches.transpose(0, 1, 3, 5, 2, 4).reshape(batch, -1, channels * p * p)
        patches = patches.astype(self.position_embedding.weight.dtype)
        return self.patch_embedding(patches, None, 1.0) + self.position_embedding.weight[...]


class Places(nnx.Module):
    """The learned vector of each patch position, (patches, d)."""

    def __init__(self, weight: jax.Array) -> None:
        self.weight = nnx.Param(weight)


def initial_vision_tower(config: VisionConfig, key: jax.Array) -> Tree:
    """Return random float32 parameters, those of the layers stacked on a leading axis."""
    outer, inner = jax.random.split(key)
    return {
        "embeddings": initial_tree(partial(VisionEmbeddings, config), outer),
        "encoder": {"layers": initial_stack(partial(VisionBlock, config), inner, config.num_hidden_layers)},
        "post_layernorm": initial_tree(partial(_post_layernorm, config), outer),
    }


def vision_tower(
    config: VisionConfig,
    params: Tree,
    lora: LoraLayer,
    scale: jax.Array | float,
    pixels: jax.Array,
    remat: Remat = "elementwise",
) -> jax.Array:
    """Map pixels (b, h, w, 3) in [-1, 1] to patch vectors (b, patches, d).

    `lora` holds the factors of all layers, stacked as the parameters are.
    """

    def layer(x: jax.Array, part: tuple[Tree, LoraLayer]) -> jax.Array:
        params, factors = part
        return module(partial(VisionBlock, config), params)(x, factors, scale)

    x = module(partial(VisionEmbeddings, config), params["embeddings"])(pixels)
    x = over_layers(layer, x, (params["encoder"]["layers"], lora), remat)
    return module(partial(_post_layernorm, config), params["post_layernorm"])(x)


def _post_layernorm(config: VisionConfig, rngs: nnx.Rngs) -> LayerNorm:
    return LayerNorm(config.hidden_size, config.layer_norm_eps)
