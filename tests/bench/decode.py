"""Times greedy decoding beside transformers + peft `generate` on the same model and prompts (--help).

python tests/bench/decode.py
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from pamctl.models.base import load_base
from pamctl.models.decoding import greedy
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import image_features
from tests.bench.peer_model import DTYPES, TARGETS, Examples, first_call, peer_of, taking_turns, told


def ours(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], np.ndarray], float]:
    """Our decoding, and the seconds that its first call took more than a later one."""
    base = load_base(arguments.base, arguments.dtype)
    # Nobody ends early, so that both sides make as many tokens.
    config = replace(base.config, eos_token_id=base.config.text.vocab_size)
    examples = Examples.random(base.config, arguments.batch, arguments.text, suffix=0)
    lora = jax.device_put(
        init_lora(config, arguments.rank, TARGETS["decoder"][0], 0), base.devices.replicated
    )
    tokens, lengths = jnp.asarray(examples.texts.tokens), jnp.asarray(examples.texts.prefix_length)
    pixels = jnp.asarray(examples.pixels)
    given = image_features(config, base.parameters, lora, 1.0, pixels)

    def decode() -> np.ndarray:
        seen = given if cached else image_features(config, base.parameters, lora, 1.0, pixels)
        return np.asarray(
            greedy(config, base.parameters, lora, 1.0, seen, tokens, lengths, max_new_tokens=arguments.new)
        )

    return decode, first_call(decode)


def theirs(arguments: argparse.Namespace, cached: bool) -> tuple[Callable[[], np.ndarray], float]:
    """The same by transformers, peft and torch."""
    folder = Path(str(arguments.base or files("pamctl") / "assets" / "tiny-paligemma"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[arguments.dtype]
    model = peer_of(folder, arguments.rank, TARGETS["decoder"][1], device, dtype, arguments.attention).eval()
    config = load_base(arguments.base, arguments.dtype).config
    examples = Examples.random(config, arguments.batch, arguments.text, suffix=0)
    given = examples.for_transformers(config, device, dtype, labels=False)
    if cached:
        with torch.no_grad():
            seen = model.get_base_model().get_image_features(given.pop("pixel_values"))
        given["mm_encoder_outputs"] = {"image": seen}
    length = given["input_ids"].shape[1]

    model.get_base_model().generation_config.eos_token_id = None

    @torch.no_grad()
    def decode() -> np.ndarray:
        made = model.generate(**given, do_sample=False, max_new_tokens=arguments.new)
        return made[:, length:].cpu().numpy()

    return decode, first_call(decode)


def compare(arguments: argparse.Namespace, cached: bool) -> None:
    (us, compiling), (them, warming) = ours(arguments, cached), theirs(arguments, cached)
    same = (us() == them()).all(axis=1).mean()
    mine, peer = taking_turns(us, them, arguments.times)
    print(told(cached, mine, peer, compiling, warming) + f"; same answers {same:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", help="folder in Hugging Face layout; the embedded one if not given")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--text", type=int, default=12, help="tokens of a prompt, beside those of its image")
    parser.add_argument("--new", type=int, default=6, help="tokens of an answer")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", choices=list(DTYPES), default="f32")
    parser.add_argument("--attention", default="sdpa", help="of transformers; eager for PaliGemma 2")
    parser.add_argument("--times", type=int, default=40)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # transformers about what peft asks it
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__}")
    print(f"{'greedy decoding':>15}  {'ours':>11}  {'their own':>11}")
    for cached in (False, True):
        compare(arguments, cached)


if __name__ == "__main__":
    main()
