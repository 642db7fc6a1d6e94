"""The model against transformers and peft in float32: logits, loss, decoding, adapters, image processing."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pamctl.adapters import Adapter, open_adapter, save_adapter
from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.decoding import greedy
from pamctl.models.images import ImageProcessor
from pamctl.models.lora import init_lora, lora_from_adapter, lora_to_adapter
from pamctl.models.paligemma import Lora, forward_logits, image_features, initial_parameters, suffix_loss
from pamctl.models.text import text_batch
from pamctl.models.trees import Tree
from pamctl.models.weights import read_weights, write_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROWS, IMAGE, ANSWER, NEW = 70, 69, 4, 6
EMBEDDED = Path(str(files("pamctl"))) / "assets" / "tiny-paligemma"
CONFIGS = {
    "one key head": PaliGemmaConfig(
        VisionConfig(16, 28, 1, 2, 16, 8), TextConfig(24, 40, 1, 4, 1, ROWS, 8), image_token_index=IMAGE
    ),
    "two key heads": PaliGemmaConfig(
        VisionConfig(24, 20, 2, 3, 12, 4), TextConfig(16, 30, 3, 4, 2, ROWS, 6), image_token_index=IMAGE
    ),
    "a key head each": PaliGemmaConfig(
        VisionConfig(12, 20, 3, 1, 12, 6, 1e-5), TextConfig(20, 44, 2, 4, 4, ROWS, 10, 1e-5, 5e5), IMAGE
    ),
    "wide heads": PaliGemmaConfig(
        VisionConfig(20, 32, 2, 5, 20, 10), TextConfig(16, 24, 4, 6, 3, ROWS, 32), image_token_index=IMAGE
    ),
}


@pytest.fixture(scope="module", params=[*CONFIGS, "embedded"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same checkpoint in both libraries, with random inputs."""
    return both(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One such model, for what does not depend on sizes."""
    return both("two key heads", tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", autouse=True)
def exact_products_on_one_core() -> Iterator[None]:
    """Accelerators round float32 factors unless told not to; tiny products only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.default_matmul_precision("highest"):
        yield
    torch.set_num_threads(threads)


def both(name: str, folder: Path) -> SimpleNamespace:
    if name == "embedded":
        folder, config = EMBEDDED, PaliGemmaConfig.from_file(EMBEDDED)
        params, _ = read_weights(folder, config)
    else:
        config = CONFIGS[name]
        params = random_params(config)
        write_weights(folder, params, config)
    return SimpleNamespace(
        folder=folder, config=config, params=params, theirs=load_theirs(folder), **inputs(config, 100)
    )


def random_params(config: PaliGemmaConfig) -> Tree:
    """Norms and biases too: at their initial values a slip in them would not show."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: initial_parameters(config, 0))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


def load_theirs(folder: Path):
    model, report = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


def inputs(config: PaliGemmaConfig, count: int) -> dict:
    rng = np.random.default_rng(1)
    side = config.vision.image_size
    words = np.setdiff1d(np.arange(3, config.text.vocab_size), [config.image_token_index])

    def ids(most: int) -> list[int]:
        return rng.choice(words, rng.integers(1, most + 1)).tolist()

    texts = [([2, *ids(8)], [*ids(ANSWER - 1), 1]) for _ in range(count)]
    pixels = rng.uniform(-1, 1, (count, 1, side, side, 3)).astype(np.float32)
    return {"texts": texts, "pixels": pixels}


def ours(model: SimpleNamespace, lora: Lora, scale: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (count, n + t, vocabulary) and losses (count,)."""
    batch = text_batch(model.texts[:count], 16, ANSWER)
    features = image_features(model.config, model.params, lora, scale, model.pixels[:count])
    logits = forward_logits(model.config, model.params, lora, scale, features, batch)
    losses = suffix_loss(model.config, model.params, lora, scale, features, batch)
    return np.asarray(logits), np.asarray(losses)


def arguments(model: SimpleNamespace, row: int, with_suffix: bool) -> dict:
    """What transformers is called with; without token types its mask would be causal."""
    prefix, suffix = model.texts[row]
    prefix = [model.config.image_token_index] * model.config.vision.image_tokens + prefix
    suffix = suffix if with_suffix else []
    ids = torch.tensor([prefix + suffix])
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.tensor([[0] * len(prefix) + [1] * len(suffix)]),
        "pixel_values": torch.tensor(model.pixels[row].transpose(0, 3, 1, 2)),
    }
    return {**given, "labels": torch.tensor([[-100] * len(prefix) + suffix])} if suffix else given


def assert_same(model: SimpleNamespace, theirs, lora: Lora, scale: float, count: int = 6) -> None:
    logits, losses = ours(model, lora, scale, count)
    for row in range(count):
        with torch.no_grad():
            found = theirs(**arguments(model, row, with_suffix=True))
        width = found.logits.shape[1]
        expected = found.logits[0].numpy()
        np.testing.assert_allclose(logits[row, :width], expected, atol=2e-5 * max(1, expected.std()), rtol=0)
        assert losses[row] == pytest.approx(found.loss.item(), abs=1e-6, rel=1e-6)


def test_logits_and_loss(model):
    assert_same(model, model.theirs, {}, 1.0)


def test_greedy_decoding_token_for_token(model):
    prefixes = text_batch([(prefix, []) for prefix, _ in model.texts], 12, 1)
    features = image_features(model.config, model.params, {}, 1.0, model.pixels)
    found = np.asarray(
        greedy(
            model.config,
            model.params,
            {},
            1.0,
            features,
            prefixes.tokens,
            prefixes.prefix_length,
            max_new_tokens=NEW,
        )
    )
    given = left_padded(model)
    answers = model.theirs.generate(**given, max_new_tokens=NEW, do_sample=False).numpy()
    answers = answers[:, given["input_ids"].shape[1] :]
    assert len({tuple(answer) for answer in answers.tolist()}) > 5
    np.testing.assert_array_equal(found[:, : answers.shape[1]], answers)
    assert not found[:, answers.shape[1] :].any()


def left_padded(model: SimpleNamespace) -> dict:
    """All prefixes as transformers wants them in one batch of `generate`."""
    rows = [arguments(model, row, with_suffix=False) for row in range(len(model.texts))]
    width = max(row["input_ids"].shape[1] for row in rows)

    def pad(name: str) -> "torch.Tensor":
        return torch.cat(
            [torch.nn.functional.pad(row[name], (width - row[name].shape[1], 0)) for row in rows]
        )

    given = {name: pad(name) for name in ("input_ids", "attention_mask", "token_type_ids")}
    return {**given, "pixel_values": torch.cat([row["pixel_values"] for row in rows])}


def random_lora(config: PaliGemmaConfig, targets: str) -> Lora:
    rng = np.random.default_rng(2)
    fresh = init_lora(config, 3, targets, seed=0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), fresh)


@pytest.mark.parametrize("targets", [r".*", r"language_model\..*(q_proj|down_proj)"])
def test_an_adapter_made_here_is_whole_in_peft(small, tmp_path, targets):
    lora = random_lora(small.config, targets)
    save_adapter(Adapter(lora_to_adapter(lora, 0.5, small.config), base_model="somewhere/base"), tmp_path)
    adapted = peft.PeftModel.from_pretrained(load_theirs(small.folder), tmp_path)
    report = adapted.load_adapter(tmp_path, "again")
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "lora" in key]
    assert_same(small, adapted, lora, 0.5)


@pytest.mark.parametrize(
    ("targets", "alpha", "rslora"),
    [
        (["q_proj", "v_proj", "fc1"], 8, False),
        (r".*language_model.*(o_proj|up_proj)|.*multi_modal_projector\.linear", 3, True),
    ],
)
def test_an_adapter_made_by_peft_is_the_same_here(small, tmp_path, targets, alpha, rslora):
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=4, lora_alpha=alpha, target_modules=targets, use_rslora=rslora, init_lora_weights=False
    )
    adapted = peft.get_peft_model(load_theirs(small.folder), settings).eval()
    adapted.save_pretrained(tmp_path)
    lora = lora_from_adapter(open_adapter(tmp_path), small.config)
    assert_same(small, adapted, lora, 1.0)


@pytest.mark.parametrize("shape", [(32, 32), (50, 20), (7, 90), (300, 301)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_pixels_equal_the_pil_processors(shape, mode):
    grey = np.random.default_rng(3).integers(0, 256, (*shape, 4), np.uint8)
    image = Image.fromarray(grey, "RGBA" if mode == "RGBA" else None).convert(mode)
    theirs = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    expected = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(ImageProcessor(size=32).pixels(image), expected)


def test_settings_written_here_are_theirs(tmp_path):
    processor = ImageProcessor(48, Image.Resampling.BILINEAR, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text(processor.to_json())
    theirs = transformers.SiglipImageProcessorPil.from_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(4).integers(0, 256, (60, 31, 3), np.uint8))
    expected = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(processor.pixels(image), expected)


def test_bf16_agrees_on_average(small):
    """In bfloat16 the order of roundings differs, so only the mean is held."""
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), small.params)
    batch = text_batch(small.texts[:1], 16, ANSWER)
    features = image_features(small.config, low, {}, 1.0, small.pixels[:1])
    logits = np.asarray(forward_logits(small.config, low, {}, 1.0, features, batch))[0]
    theirs = load_theirs(small.folder).to(torch.bfloat16)
    given = arguments(small, 0, with_suffix=True)
    given["pixel_values"] = given["pixel_values"].to(torch.bfloat16)
    with torch.no_grad():
        found = theirs(**given).logits[0].float().numpy()
    assert np.abs(logits[: len(found)] - found).mean() < 0.05 * found.std()
