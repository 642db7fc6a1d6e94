"""A PaliGemma so small that compiling it takes longer than running it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import Lora, image_features, initial_parameters
from pamctl.models.text import TextBatch, text_batch
from pamctl.models.trees import Tree
from pamctl.models.weights import write_weights
from tests.in_haste import compiled_in_haste

ROWS = 40
TARGETS = r".*(q_proj|o_proj|down_proj|fc1|linear)"


@pytest.fixture(scope="module", autouse=True)
def _in_haste() -> Iterator[None]:
    with compiled_in_haste():
        yield


@pytest.fixture(scope="session")
def config() -> PaliGemmaConfig:
    return PaliGemmaConfig(
        vision=VisionConfig(12, 20, 2, 3, image_size=8, patch_size=4),
        text=TextConfig(16, 24, 3, 4, 2, ROWS, head_dim=6),
        image_token_index=4,
    )


@pytest.fixture(scope="session")
def params(config: PaliGemmaConfig) -> Tree:
    with compiled_in_haste():
        return initial_parameters(config, 0)


@pytest.fixture(scope="session")
def lora(config: PaliGemmaConfig) -> Lora:
    """Factors with B filled in, so that they change the output."""
    key = jax.random.key(1)
    fresh = init_lora(config, 3, TARGETS, seed=0)
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(key, leaf.shape), fresh)


@pytest.fixture(scope="session")
def texts() -> list[tuple[list[int], list[int]]]:
    return [([2, 9, 8, 5], [7, 1]), ([2, 10, 5], [11, 12, 1]), ([2, 5], [1])]


@pytest.fixture(scope="session")
def batch(texts: list[tuple[list[int], list[int]]]) -> TextBatch:
    return text_batch(texts, text_length=7)


@pytest.fixture(scope="session")
def pixels() -> jax.Array:
    """One image for each text of `batch`."""
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 1, 8, 8, 3)).astype(np.float32))


@pytest.fixture(scope="session")
def features(config: PaliGemmaConfig, params: Tree, pixels: jax.Array) -> jax.Array:
    return image_features(config, params, {}, 1.0, pixels)


def make_tokenizer() -> tokenizers.Tokenizer:
    """Words of one letter, in a vocabulary laid out as PaliGemma's."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n", *"abcdefgh"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<image>"])
    return tokenizer


@pytest.fixture(scope="session")
def checkpoint(config: PaliGemmaConfig, params: Tree, tmp_path_factory: pytest.TempPathFactory):
    """A whole base model on disk."""
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    folder.mkdir()
    write_weights(folder, params, config)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(ImageProcessor(size=8).to_json())
    return folder
