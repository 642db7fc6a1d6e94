"""I-LoRA's slow adapter: the moving average over steps of the one that is trained, the fast one."""

from functools import partial

import jax

from pamctl.adapters import Adapter, open_adapter
from pamctl.models.paligemma import Lora

FAST = "fast"
"""The folder, beside the slow adapter's files, of the fast one, from which the next task goes on."""


def weight_of_slow(step: int, decay: float) -> float:
    """Return a = min(1 - 1 / (step + 1), decay), the slow adapter's weight after step `step` (1-based).

    Source: which47/LLMCL, `method/ILORA.py`; its decay of 0.25 is below 1/2, so that the first bound never
    bites there.
    """
    return min(1 - 1 / (step + 1), decay)


@partial(jax.jit, donate_argnames="slow")
def followed(slow: Lora, fast: Lora, weight: float) -> Lora:
    """Return weight · slow + (1 - weight) · fast."""
    return jax.tree.map(lambda old, new: weight * old + (1 - weight) * new, slow, fast)


def fast_adapter(slow: Adapter) -> Adapter | None:
    """Return the fast adapter that lies beside a slow one; None where there is none."""
    if slow.origin is None:
        return None
    beside = slow.origin.folder / FAST
    return open_adapter(beside, routers=True) if beside.is_dir() else None
