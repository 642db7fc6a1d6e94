"""I-LoRA's consistency: the fast adapter's states stay near the slow one's."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pamctl.models.paligemma import suffix_targets
from pamctl.training.terms.step import Step, check_weight


@dataclass(frozen=True)
class Consistency:
    """mean over suffix tokens and their last hidden states of (slow - fast)² where slow > fast, else 0.

    The released code has it on the replayed half of the batch; here it is on the whole of it. PAM's paper
    leaves it out together with the replay.

    Parameters:
        weight: 1, as released.

    Source: which47/LLMCL, `method/ILORA.py`; Li et al., arXiv 2402.18865.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(self, step: Step) -> jax.Array:
        _, real = suffix_targets(step.texts)
        slow = step.states_of(step.slow, step.scale).astype(jnp.float32)
        short = jnp.square(jax.nn.relu(slow - step.hidden.astype(jnp.float32))).mean(-1)
        return (short * real).sum() / jnp.maximum(real.sum(), 1)


TERM = Consistency
