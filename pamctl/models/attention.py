"""How queries weigh keys, in both towers: grouped heads, softmax in float32."""

import jax
import jax.numpy as jnp

_FAR = -1e30


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Return the attended values, heads joined.

    Args:
        queries: (b, t, heads, head_dim), already scaled.
        keys: (b, s, kv_heads, head_dim); query heads share key heads in consecutive groups.
        values: (b, s, kv_heads, head_dim).
        mask: (b, t, s) or (1, t, s), True where a query sees a key; None where each sees all.
        softcap: c in c tanh(score / c), which comes before the mask; None for none.

    Returns:
        (b, t, heads * head_dim) in the dtype of `values`.
    """
    batch, length, heads, width = queries.shape
    slots, shared = keys.shape[1:3]
    # The queries of a group are rows of one product, and heads stand before tokens: copied once, here.
    grouped = queries.reshape(batch, length, shared, -1, width).transpose(0, 2, 3, 1, 4)
    rows = grouped.reshape(batch, shared, -1, width)
    keys, values = keys.swapaxes(1, 2), values.swapaxes(1, 2)
    scores = jnp.einsum("bkqh,bksh->bkqs", rows, keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = scores.reshape(batch, shared, -1, length, slots)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, _FAR)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype).reshape(batch, shared, -1, slots)
    attended = jnp.einsum("bkqs,bksh->bkqh", weights, values).reshape(grouped.shape)
    return attended.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * width)
