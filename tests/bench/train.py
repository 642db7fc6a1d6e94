"""Times a training step beside transformers + peft on the same model, batch, targets and dtype (--help).

python tests/bench/train.py
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp
import torch

from pamctl.models.base import load_base
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import image_features
from pamctl.training.loop import StepNumbers, initial_state, train_step
from pamctl.training.optimizer import Rates
from tests.bench.peer_model import Examples, peer_of

RATE = 5e-4
STEPS = 1_000_000
TARGETS = {
    "decoder": (r"language_model\..*", r".*language_model\..*(q|k|v|o|gate|up|down)_proj"),
    "both": (
        r"(language_model|vision_tower).*",
        r".*(language_model|vision_tower)\..*(q_proj|k_proj|v_proj|o_proj|out_proj|gate_proj|up_proj|down_proj|fc1|fc2)",
    ),
}


def ours(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], float], float]:
    """Our step, and the seconds that its first call took more than a later one."""
    base = load_base(arguments.base, {"f32": jnp.float32, "bf16": jnp.bfloat16}[arguments.dtype])
    config, params = base.config, base.parameters
    examples = Examples.random(config, arguments.batch, arguments.text)
    images: Any = jnp.asarray(examples.pixels)
    if cached:
        images = image_features(config, params, {}, 1.0, images).block_until_ready()
    lora = init_lora(config, arguments.rank, TARGETS[arguments.targets][0], 0)
    rates = Rates(*(jnp.float32(rate) for rate in (RATE, 0, 1)), *(jnp.int32(steps) for steps in (0, STEPS)))
    numbers = StepNumbers(jnp.float32(1), jnp.float32(0), rates)
    texts = jax.device_put(examples.texts)
    state = initial_state(lora)

    def step() -> float:
        nonlocal state
        state, loss = train_step(config, params, state, images, texts, numbers)
        return float(loss)

    return step, first_call(step)


def theirs(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], float], float]:
    """The same step by transformers, peft and torch."""
    folder = arguments.base or files("pamctl") / "assets" / "tiny-paligemma"
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = peer_of(
        Path(str(folder)), arguments.rank, TARGETS[arguments.targets][1], device, dtype, arguments.attention
    )
    config = load_base(arguments.base, {"f32": jnp.float32, "bf16": jnp.bfloat16}[arguments.dtype]).config
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
        return float(loss)

    return step, first_call(step)


def first_call(step: Callable[[], float]) -> float:
    """What the first call costs beyond the second: compilation, mostly."""
    begun = time.perf_counter()
    step()
    first = time.perf_counter()
    step()
    return first - begun - (time.perf_counter() - first)


def timed(step: Callable[[], float]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def compare(arguments: argparse.Namespace, cached: bool) -> None:
    """Take turns, so that what else the machine does falls on both."""
    (us, compiling), (them, warming) = ours(arguments, cached), theirs(arguments, cached)
    pairs = [(timed(us), timed(them)) for _ in range(arguments.steps)]
    middle, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
    best, best_peer = (min(side) for side in zip(*pairs, strict=True))
    print(
        f"{'features given' if cached else 'from pixels':>15}  {1e3 * middle:8.1f} ms  {1e3 * peer:8.1f} ms  "
        f"{peer / middle:5.2f}x  (least {1e3 * best:.1f}, {1e3 * best_peer:.1f}: {best_peer / best:.2f}x)  "
        f"first call {compiling:.1f} s, {warming:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", help="folder in Hugging Face layout; the embedded one if not given")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--text", type=int, default=18, help="tokens of a text, beside those of its image")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", choices=list(TARGETS), default="decoder")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--attention", default="sdpa", help="of transformers; eager for PaliGemma 2")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__}")
    print(f"{'training step':>15}  {'ours':>11}  {'their own':>11}")
    for cached in (False, True) if arguments.targets == "decoder" else (False,):
        compare(arguments, cached)


if __name__ == "__main__":
    main()
