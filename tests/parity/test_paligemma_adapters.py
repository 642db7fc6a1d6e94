"""Adapters trained by pamctl in transformers and peft, and adapters trained there in pamctl."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.models.config import TextConfig, VisionConfig
from pamctl.models.lora import lora_from_adapter
from pamctl.models.paligemma import Lora
from pamctl.training import train_task
from tests.parity.paligemma_cases import (
    EMBEDDED,
    LOGITS,
    Case,
    Model,
    exact_products_on_one_core,
    in_peft,
    in_transformers,
    logits_of,
    peft,
    random_lora,
    random_model,
    save_lora,
    torch,
)
from tests.training_cases import write_task

# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROWS = 6
VISION = VisionConfig(8, 12, 2, 2, image_size=32, patch_size=8)
CASES = {
    "gemma": Case(VISION, TextConfig(12, 16, 2, 2, 1, 370, 6)),
    "gemma2": Case(VISION, TextConfig(12, 16, 2, 2, 1, 370, 6, 1e-6, 1e4, 2, 9, 1.0, 1.5, sliding_window=20)),
}


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    # a training step takes ten seconds to compile well, for two steps
    jax.config.update("jax_disable_most_optimizations", True)
    with exact_products_on_one_core():
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", params=CASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A whole base of either generation: random, but for the embedded one's tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copy(EMBEDDED / name, folder)
    return random_model(CASES[request.param], folder, ROWS)


def assert_same(model: Model, adapted: Any, lora: Lora, scale: float = 1.0) -> None:
    """The adapter does something, and the same in both libraries."""
    given, batch = model.given(range(ROWS), "left"), model.batch(ROWS)
    real = given["attention_mask"].bool()
    with torch.no_grad():
        expected = adapted(**given).logits[real].numpy()
        with adapted.disable_adapter():
            assert np.abs(adapted(**given).logits[real].numpy() - expected).max() > 100 * LOGITS
    found = np.asarray(logits_of(model.config, model.params, lora, scale, model.pixels, batch))
    np.testing.assert_allclose(model.real(found, batch), expected, atol=LOGITS, rtol=0)


def test_an_adapter_trained_here_is_the_same_in_peft(base: Model, tmp_path: Path) -> None:
    out = train_task(
        write_task(tmp_path / "task"),
        tmp_path / "adapter",
        base=str(base.folder),
        steps=2,
        batch_size=4,
        learning_rate=0.02,
        targets=r".*(q_proj|down_proj|fc1|linear)",
    )
    assert_same(base, in_peft(base, out), lora_from_adapter(open_adapter(out), base.config))


def test_an_adapter_of_one_tower_is_the_same_in_peft(base: Model, tmp_path: Path) -> None:
    lora = random_lora(base.config, r"language_model\..*(q_proj|down_proj)")
    assert_same(base, in_peft(base, save_lora(lora, 0.5, base.config, tmp_path / "adapter")), lora, 0.5)


@pytest.mark.parametrize(
    ("targets", "alpha", "rslora"),
    [
        (["q_proj", "v_proj", "fc1", "linear"], 8, False),
        (r".*language_model.*(o_proj|up_proj)|.*vision_tower.*fc2|.*multi_modal_projector\.linear", 3, True),
    ],
)
def test_an_adapter_trained_by_peft_is_the_same_here(
    base: Model, tmp_path: Path, targets: Any, alpha: int, rslora: bool
) -> None:
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=targets, use_rslora=rslora)
    adapted = peft.get_peft_model(in_transformers(base), settings)
    optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=0.02)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**base.given(range(ROWS), "right")).loss.backward()
        optimizer.step()
    adapted.eval().save_pretrained(tmp_path)
    assert_same(base, adapted, lora_from_adapter(open_adapter(tmp_path), base.config))
