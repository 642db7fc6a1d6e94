"""Times a training step beside transformers + peft on the same model, batch, targets and dtype (--help).

python tests/bench/train.py
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from pamctl.models.base import load_base
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import image_features
from pamctl.training.batches import Batch
from pamctl.training.loop import StepNumbers, initial_state, train_step
from pamctl.training.optimizer import Rates
from pamctl.training.realignment import _realign
from tests.bench.peer_model import (
    DTYPES,
    TARGETS,
    Examples,
    first_call,
    peer_of,
    taking_turns,
    timed,
    told,
)

RATE = 5e-4
STEPS = 1_000_000


def ours(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], float], float]:
    """Our step, and the seconds that its first call took more than a later one."""
    base = load_base(arguments.base, arguments.dtype)
    config, params = base.config, base.parameters
    examples = Examples.random(config, arguments.batch, arguments.text)
    images: Any = examples.pixels
    if cached:
        images = np.asarray(image_features(config, params, {}, 1.0, images))
    lora = init_lora(config, arguments.rank, TARGETS[arguments.targets][0], 0)
    rates = Rates(*(jnp.float32(rate) for rate in (RATE, 0, 1)), *(jnp.int32(steps) for steps in (0, STEPS)))
    numbers = StepNumbers(jnp.float32(1), rates)
    state = initial_state(jax.device_put(lora, base.devices.replicated))
    smoothing = np.zeros(arguments.batch, np.float32)
    batch = base.devices.put_batch(Batch(images, examples.texts, smoothing))

    def step() -> float:
        nonlocal state
        state, losses = train_step(config, params, state, batch, {}, numbers)
        return float(losses.loss)

    return step, first_call(step)


def realignment(arguments: argparse.Namespace) -> Callable[[], float]:
    """PAM's alignment of an adapter of the same shape, against a global one half of whose weights matter."""
    base = load_base(arguments.base, arguments.dtype)
    fresh = init_lora(base.config, arguments.rank, TARGETS[arguments.targets][0], 0)
    reference = jax.tree.map(lambda leaf: leaf + 0.01, fresh)
    limits = jax.tree.map(lambda leaf: jnp.full((len(leaf), 1, 1), jnp.median(jnp.abs(leaf))), reference)
    state = initial_state(fresh)

    def align() -> float:
        nonlocal state
        lora, moments, counts = _realign(
            state.lora, state.optimizer, reference, limits, {}, reinit="global", moments="keep"
        )
        state = state._replace(lora=lora, optimizer=moments)
        return float(jax.tree.leaves(counts)[0][0])

    return align


def theirs(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], float], float]:
    """The same step by transformers, peft and torch."""
    folder = arguments.base or files("pamctl") / "assets" / "tiny-paligemma"
    dtype = DTYPES[arguments.dtype]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = peer_of(
        Path(str(folder)), arguments.rank, TARGETS[arguments.targets][1], device, dtype, arguments.attention
    )
    config = load_base(arguments.base, arguments.dtype).config
    given = Examples.random(config, arguments.batch, arguments.text).for_transformers(
        config, device, dtype, labels=True
    )
    if cached:
        with torch.no_grad():
            seen = model.get_base_model().get_image_features(given.pop("pixel_values"))
        given["mm_encoder_outputs"] = {"image": seen}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)

    def step() -> float:
        loss = model(**given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, first_call(step)


def compare(arguments: argparse.Namespace, cached: bool) -> None:
    (us, compiling), (them, warming) = ours(arguments, cached), theirs(arguments, cached)
    mine, peer = taking_turns(us, them, arguments.steps)
    print(told(cached, mine, peer, compiling, warming))
    align = realignment(arguments)
    align()
    once = statistics.median(timed(align) for _ in range(arguments.steps))
    step = statistics.median(mine)
    shares = ", ".join(f"{100 * once / (every * step):.2f} % at every {every}" for every in (10, 100))
    print(f"{'realigning':>15}  {1e3 * once:8.2f} ms, of the steps' time {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", help="folder in Hugging Face layout; the embedded one if not given")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--text", type=int, default=18, help="tokens of a text, beside those of its image")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", choices=list(TARGETS), default="decoder")
    parser.add_argument("--dtype", choices=list(DTYPES), default="f32")
    parser.add_argument("--attention", default="sdpa", help="of transformers; eager for PaliGemma 2")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # transformers about what peft asks it
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__}")
    print(f"{'training step':>15}  {'ours':>11}  {'their own':>11}")
    for cached in (False, True) if arguments.targets == "decoder" else (False,):
        compare(arguments, cached)


if __name__ == "__main__":
    main()
