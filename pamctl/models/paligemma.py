"""PaliGemma: image tokens and text through one language tower, and the loss on the suffix."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pamctl.models import gemma, siglip
from pamctl.models.config import PaliGemmaConfig, TextConfig
from pamctl.models.projection import LoraLayer, Projection
from pamctl.models.text import TextBatch
from pamctl.models.trees import Remat, Tree, initial_tree, module

LOGITS_AT_ONCE = 2**26
"""Numbers, of 4 bytes each."""

Lora = dict[str, dict[str, dict[str, Any]]]
"""{tower: {kind: {"a": (layers, in, r), "b": (layers, r, out)}}}, float32; {} adapts nothing."""


@partial(jax.jit, static_argnums=0)
def initial_parameters(config: PaliGemmaConfig, seed: int) -> Tree:
    """Return random float32 parameters for training from scratch: matrices N(0, 1/fan_in), norms neutral."""
    vision, between, text = jax.random.split(jax.random.key(seed), 3)
    return {
        "vision_tower": siglip.initial_vision_tower(config.vision, vision),
        "multi_modal_projector": {"linear": initial_tree(partial(_projector, config), between)},
        "language_model": gemma.initial_language_model(config.text, text),
    }


@partial(jax.jit, static_argnums=0, static_argnames="remat")
def image_features(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    pixels: jax.Array,
    remat: Remat = "elementwise",
) -> jax.Array:
    """Map each example's images to the tokens that stand before its text.

    Args:
        pixels: (b, n, h, w, 3) float32 in [-1, 1], n images an example.

    Returns:
        (b, n * image_tokens, d) in the parameters' dtype.
    """
    images = pixels.reshape(-1, *pixels.shape[2:])
    tower = lora.get("vision_tower", {})
    patches = siglip.vision_tower(config.vision, params["vision_tower"], tower, scale, images, remat)
    adapted: LoraLayer = jax.tree.map(lambda leaf: leaf[0], lora.get("multi_modal_projector", {}))
    projector = module(partial(_projector, config), params["multi_modal_projector"]["linear"])
    features = projector(patches, adapted.get("linear"), scale)
    return features.reshape(pixels.shape[0], -1, config.text.hidden_size)


def prefix_mask(prefix_length: jax.Array, length: jax.Array, width: int) -> jax.Array:
    """Return who sees whom, (b, width, width): rows look at columns.

    The prefix (images, <bos>, prompt, "\\n") sees all of itself; a suffix token sees the prefix and the
    suffix up to itself; nobody sees padding. With prefix "i p", suffix "s t" and one pad:

            i p s t .
        i   1 1 0 0 0
        p   1 1 0 0 0
        s   1 1 1 0 0
        t   1 1 1 1 0

    Args:
        prefix_length: (b,), image tokens counted.
        length: (b,), tokens before the padding, image tokens counted.
    """
    row, column = jnp.arange(width)[:, None], jnp.arange(width)[None]
    seen = (column <= row) | (column < prefix_length[:, None, None])
    return seen & (column < length[:, None, None])


def near_mask(config: TextConfig, mask: jax.Array, prefix_length: jax.Array) -> jax.Array | None:
    """Return what of `prefix_mask` is left in a layer with a sliding window; None where all of it is.

    The prefix goes on seeing all of itself, as transformers has it; a suffix token sees the last
    `sliding_window` tokens, itself among them.
    """
    window, width = config.sliding_window, mask.shape[-1]
    if window is None or width <= window:
        return None
    row, column = jnp.arange(width)[:, None], jnp.arange(width)[None]
    return mask & ((column > row - window) | (row < prefix_length[:, None, None]))


def hidden_states(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    batch: TextBatch,
    remat: Remat = "elementwise",
) -> jax.Array:
    """Return the normed last hidden states of [image, text]: (b, n + t, d)."""
    text = gemma.embed(params["language_model"], jnp.asarray(batch.tokens))
    x = jnp.concatenate([features.astype(text.dtype), text], axis=1)
    images, width = features.shape[1], x.shape[1]
    prefix, length = (jnp.asarray(of) + images for of in (batch.prefix_length, batch.length))
    mask = prefix_mask(prefix, length, width)
    near = near_mask(config.text, mask, prefix)
    positions = jnp.arange(width)[None]
    tower = lora.get("language_model", {})
    hidden, _ = gemma.language_model(
        config.text, params["language_model"], tower, scale, x, positions, mask, near=near, remat=remat
    )
    return hidden


@partial(jax.jit, static_argnums=0)
def forward_logits(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    batch: TextBatch,
) -> jax.Array:
    """Return float32 logits at every position of [image, text]: (b, n + t, vocabulary)."""
    hidden = hidden_states(config, params, lora, scale, features, batch)
    return gemma.unembed(config.text, params["language_model"], hidden)


@partial(jax.jit, static_argnums=0)
def suffix_logits(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    batch: TextBatch,
) -> jax.Array:
    """Return float32 logits where suffix tokens are predicted: (b, suffix_width, vocabulary).

    Entry [i, j] predicts token j of example i's suffix; past its end the values mean nothing
    (`suffix_targets` says where that is).
    """
    hidden = suffix_states(config, params, lora, scale, features, batch, "elementwise")
    return gemma.unembed(config.text, params["language_model"], hidden)


def suffix_targets(batch: TextBatch) -> tuple[jax.Array, jax.Array]:
    """Return the suffix tokens (b, suffix_width) int32 and where they are real (b, suffix_width) bool."""
    places = _suffix_places(batch)
    tokens = jnp.take_along_axis(
        jnp.asarray(batch.tokens), jnp.minimum(places, batch.tokens.shape[1] - 1), axis=1
    )
    return tokens, places < batch.length[:, None]


@partial(jax.jit, static_argnums=0, static_argnames="remat")
def suffix_loss(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    batch: TextBatch,
    label_smoothing: jax.Array | float = 0.0,
    remat: Remat = "elementwise",
) -> jax.Array:
    """Return each example's mean cross-entropy over its suffix tokens, <eos> counted: (b,) float32.

    Logits are computed for suffix tokens alone, and for no more of them at once than `LOGITS_AT_ONCE`.

    Args:
        features: (b, n, d) from `image_features`.
        label_smoothing: one number or one per example (b,): the target gets 1 - e, every other token
            e / (vocabulary - 1), as big_vision trains PaliGemma.
        remat: of each layer.
    """
    hidden = suffix_states(config, params, lora, scale, features, batch, remat)
    return loss_of_states(config, params, hidden, batch, label_smoothing)


def loss_of_states(
    config: PaliGemmaConfig,
    params: Tree,
    hidden: jax.Array,
    batch: TextBatch,
    label_smoothing: jax.Array | float = 0.0,
) -> jax.Array:
    """Return what `suffix_loss` returns, from the hidden states that `suffix_states` gives."""
    targets, _ = suffix_targets(batch)
    smoothing = jnp.broadcast_to(jnp.asarray(label_smoothing, jnp.float32), targets.shape[:1])
    smoothing = jnp.broadcast_to(smoothing[:, None], targets.shape)
    return mean_over_suffix(config, params, batch, _token_losses, hidden, targets, smoothing)


def mean_over_suffix(
    config: PaliGemmaConfig,
    params: Tree,
    batch: TextBatch,
    of_tokens: Callable[..., jax.Array],
    *given: jax.Array,
) -> jax.Array:
    """Return each example's mean over its suffix tokens of something that needs logits: (b,) float32.

    Args:
        of_tokens: (text config, language parameters, *given) -> a number a token. Called for all tokens at
            once, or for one of each example after the other where the logits were more than `LOGITS_AT_ONCE`.
        given: (b, suffix_width, ...) each.
    """
    _, real = suffix_targets(batch)
    of_some = partial(of_tokens, config.text, params["language_model"])
    if real.size * config.text.vocab_size <= LOGITS_AT_ONCE:
        values = of_some(*given)
    else:
        columns = tuple(jnp.swapaxes(of, 0, 1) for of in given)
        values = jax.lax.map(lambda column: jax.checkpoint(of_some)(*column), columns).T
    return jnp.where(real, values, 0.0).sum(-1) / jnp.maximum(real.sum(-1), 1)


def _token_losses(
    config: TextConfig, model: Tree, hidden: jax.Array, targets: jax.Array, smoothing: jax.Array
) -> jax.Array:
    """Cross-entropy of tokens (...) from their hidden states (..., d)."""
    logits = gemma.unembed(config, model, hidden)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    of_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
    count = logits.shape[-1]
    others = (count * (logits.mean(-1) - normaliser) - of_target) / (count - 1)
    return -((1 - smoothing) * of_target + smoothing * others)


def suffix_states(
    config: PaliGemmaConfig,
    params: Tree,
    lora: Lora,
    scale: jax.Array | float,
    features: jax.Array,
    batch: TextBatch,
    remat: Remat = "elementwise",
) -> jax.Array:
    """Return the hidden states from which suffix tokens are predicted: (b, suffix_width, d)."""
    hidden = hidden_states(config, params, lora, scale, features, batch, remat)
    at = features.shape[1] + _suffix_places(batch) - 1
    return jnp.take_along_axis(hidden, jnp.minimum(at, hidden.shape[1] - 1)[..., None], axis=1)


def _suffix_places(batch: TextBatch) -> jax.Array:
    return jnp.asarray(batch.prefix_length)[:, None] + jnp.arange(batch.suffix_width)


def _projector(config: PaliGemmaConfig, rngs: nnx.Rngs) -> Projection:
    return Projection(config.vision.hidden_size, config.text.hidden_size, bias=True, rngs=rngs)
