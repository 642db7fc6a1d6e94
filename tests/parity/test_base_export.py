"""A big_vision checkpoint, exported, is whole in transformers and has the same logits as here."""

from pathlib import Path

import jax
import numpy as np
import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.models.base import load_base
from pamctl.models.paligemma import forward_logits, image_features
from pamctl.models.text import text_batch
from tests.models.big_vision_cases import CONFIGS, ROWS, big_vision_arrays, random_checkpoint, write_npz
from tests.models.conftest import make_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [([2, 9, 8, 5], [7, 1]), ([2, 10, 5], [11, 12, 1]), ([2, 5], [1])]


@pytest.fixture(params=[1, 2])
def generation(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def exported(tmp_path: Path, generation: int) -> Path:
    """Sharded, of an .npz whose embedding is not all there."""
    config = CONFIGS[generation]
    place = tmp_path / "jax"
    place.mkdir()
    make_tokenizer().save(str(place / "tokenizer.json"))
    write_npz(place / "small.npz", big_vision_arrays(random_checkpoint(config), config))
    output = str(tmp_path / "out")
    ran = exit_code_of(
        lambda: pamctl(
            ["convert-base", str(place), "-o", output, "--max-shard-size", "8K"], standalone_mode=False
        )
    )
    assert ran == 0
    return Path(output)


def test_it_is_whole_in_transformers_and_computes_the_same(exported: Path, generation: int) -> None:
    theirs, report = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        exported, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    base = load_base(str(exported.parent / "jax"), "f32")
    pixels = np.random.default_rng(1).uniform(-1, 1, (len(TEXTS), 1, 8, 8, 3)).astype(np.float32)
    batch = text_batch(TEXTS, text_length=7)
    with jax.default_matmul_precision("highest"):
        features = image_features(base.config, base.parameters, {}, 1.0, pixels)
        logits = np.asarray(forward_logits(base.config, base.parameters, {}, 1.0, features, batch))
    for row, (prefix, suffix) in enumerate(TEXTS):
        prefix = [ROWS] * base.config.vision.image_tokens + prefix
        ids = torch.tensor([prefix + suffix])
        with torch.no_grad():
            found = theirs.eval()(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.tensor([[0] * len(prefix) + [1] * len(suffix)]),
                pixel_values=torch.tensor(pixels[row].transpose(0, 3, 1, 2)),
                labels=torch.tensor([[-100] * len(prefix) + suffix]),
            ).logits[0]
        assert found.std() > 0.1
        np.testing.assert_allclose(logits[row, : len(found)], found.numpy(), atol=2e-5, rtol=0)


def test_it_is_the_same_base_here(exported: Path) -> None:
    before, after = (load_base(str(folder), "f32") for folder in (exported.parent / "jax", exported))
    jax.tree.map(np.testing.assert_array_equal, after.parameters, before.parameters)
    assert after.fingerprint == before.fingerprint
    assert after.config == before.config


def test_its_tokenizer_and_image_settings_load_there(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<pad>", "<eos>", "<bos>")
    assert tokenizer("a b", add_special_tokens=False)["input_ids"] == [6, 7]
    assert transformers.SiglipImageProcessorPil.from_pretrained(exported).size["height"] == 8


def test_ours_written_again_is_bit_equal(tmp_path: Path) -> None:
    asset = load_base()
    run = exit_code_of(
        lambda: pamctl(["convert-base", "tiny", "-o", str(tmp_path / "out")], standalone_mode=False)
    )
    assert run == 0
    again = load_base(str(tmp_path / "out"))
    jax.tree.map(np.testing.assert_array_equal, again.parameters, asset.parameters)
    assert again.fingerprint == asset.fingerprint
    _, report = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
