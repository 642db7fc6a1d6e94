"""Logits, losses and gradients of random models against transformers and peft, in float32."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.lora import adaptable
from pamctl.models.paligemma import Lora, forward_logits, image_features, suffix_loss
from pamctl.models.text import TextBatch
from pamctl.models.trees import Tree
from tests.parity.paligemma_cases import (
    CASES,
    GEMMA_2,
    LOGITS,
    Model,
    compiled,
    embedded_model,
    exact_products_on_one_core,
    in_peft,
    in_transformers,
    random_lora,
    random_model,
    save_lora,
    torch,
)

# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROWS, SCALE = 6, 0.5


@dataclass(frozen=True)
class Compared:
    """One model with an adapter of every module, what pamctl finds, and the same in peft.

    Attributes:
        gradients: of the loss as transformers takes it over a batch, the mean over all suffix tokens.
    """

    model: Model
    adapted: Any
    batch: TextBatch
    logits: np.ndarray
    losses: np.ndarray
    gradients: Lora

    @property
    def share(self) -> np.ndarray:
        """Each example's share of the batch's suffix tokens."""
        return shares(self.batch)

    @property
    def tolerance(self) -> float:
        """By how much more logits round off where they are larger than 1."""
        return max(1.0, float(self.model.real(self.logits, self.batch).std()))


def shares(batch: TextBatch) -> np.ndarray:
    tokens = np.asarray(batch.length - batch.prefix_length, np.float32)
    return tokens / tokens.sum()


@compiled
def everything(
    config: PaliGemmaConfig, params: Tree, lora: Lora, pixels: jax.Array, batch: TextBatch, share: jax.Array
) -> tuple[jax.Array, jax.Array, Lora]:
    """Logits, losses, and the gradients of the losses' mean weighed by `share`."""

    def mean(lora: Lora) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        features = image_features(config, params, lora, SCALE, pixels)
        losses = suffix_loss(config, params, lora, SCALE, features, batch)
        return losses @ share, (losses, features)

    gradients, (losses, features) = jax.grad(mean, has_aux=True)(lora)
    return forward_logits(config, params, lora, SCALE, features, batch), losses, gradients


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    with exact_products_on_one_core():
        yield


@pytest.fixture(scope="module", params=[*CASES, "embedded"])
def compared(
    request: pytest.FixtureRequest, exactly: None, tmp_path_factory: pytest.TempPathFactory
) -> Compared:
    folder = tmp_path_factory.mktemp("model")
    case = CASES.get(request.param)
    model = random_model(case, folder, ROWS) if case else embedded_model(ROWS)
    lora = random_lora(model.config, ".*")
    adapted = in_peft(model, save_lora(lora, SCALE, model.config, folder / "adapter"), trainable=True)
    batch = model.batch(ROWS)
    found = everything(model.config, model.params, lora, model.pixels, batch, shares(batch))
    return Compared(model, adapted.eval(), batch, *jax.device_get(found))


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_a_padded_batch(compared: Compared, side: str) -> None:
    given = compared.model.given(range(ROWS), side)
    with torch.no_grad():
        logits = compared.adapted(**given).logits
    expected = logits[given["attention_mask"].bool()].numpy()
    if compared.model.folder.name != "tiny-paligemma":
        assert 0.2 < expected.std() < 1.5
    found = compared.model.real(compared.logits, compared.batch)
    np.testing.assert_allclose(found, expected, atol=LOGITS * compared.tolerance, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_of_a_padded_batch_is_a_mean_over_tokens(compared: Compared, side: str) -> None:
    with torch.no_grad():
        expected = compared.adapted(**compared.model.given(range(ROWS), side)).loss.item()
    assert compared.losses @ compared.share == pytest.approx(expected, abs=1e-6 * compared.tolerance, rel=0)


@pytest.fixture
def exact(compared: Compared) -> Any:
    """peft's model in float64: in float32 its losses and gradients are up to 7e-6 off, and ours as much in
    another direction."""
    return copy.deepcopy(compared.adapted).double()


def in_float64(given: dict[str, Any]) -> dict[str, Any]:
    return {name: of.double() if of.is_floating_point() else of for name, of in given.items()}


def test_loss_of_each_example_alone(compared: Compared, exact: Any) -> None:
    with torch.no_grad():
        expected = [
            exact(**in_float64(compared.model.given([row], "left"))).loss.item() for row in range(ROWS)
        ]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(compared.losses, expected, atol=1e-6 * compared.tolerance, rtol=0)


def test_gradients_of_every_factor(compared: Compared, exact: Any) -> None:
    exact(**in_float64(compared.model.given(range(ROWS), "left"))).loss.backward()
    theirs = {
        name.removeprefix("base_model.model.model."): parameter.grad.numpy()
        for name, parameter in exact.named_parameters()
        if "lora_" in name
    }
    for kind in adaptable(compared.model.config):
        factors = compared.gradients[kind.tower][kind.kind]
        for layer, module in enumerate(kind.modules()):
            # peft's B holds the scale, so that its gradient lacks it
            for found, name in ((factors["a"], "lora_A"), (factors["b"] / np.float32(SCALE), "lora_B")):
                expected = theirs.pop(f"{module}.{name}.default.weight").T
                error = np.linalg.norm(found[layer] - expected)
                assert error < 1e-5 * np.linalg.norm(expected), (module, name)
    assert not theirs


def differences(model: Model, theirs: Any, field: str, value: object) -> Any:
    """How far each logit moves, (b, t, vocabulary), when a field of transformers' text_config is set."""
    given = model.given(range(ROWS), "right")
    with torch.no_grad():
        before = theirs(**given).logits
        setattr(theirs.config.text_config, field, value)
        for layer in theirs.model.language_model.layers:
            if hasattr(layer.self_attn, field):
                setattr(layer.self_attn, field, value)
        return (theirs(**given).logits - before).abs() * given["attention_mask"][..., None]


@pytest.mark.parametrize("field", ["attn_logit_softcapping", "final_logit_softcapping"])
@pytest.mark.parametrize("name", GEMMA_2)
def test_caps_are_low_enough_to_be_felt(name: str, field: str, tmp_path: Path) -> None:
    """Without a cap these models give other logits: the comparisons above would show one left out."""
    model = random_model(GEMMA_2[name], tmp_path, ROWS)
    moved = differences(model, in_transformers(model), field, None).max()
    assert moved > 100 * LOGITS if getattr(model.config.text, field) else moved == 0


@pytest.mark.parametrize(
    "name", ["images beyond the window", "the suffix beyond the window", "a window of two"]
)
def test_windows_are_short_enough_to_be_felt(name: str, tmp_path: Path) -> None:
    """A wider window changes what suffixes get, and nothing before: the prefix sees all of itself anyway."""
    model = random_model(GEMMA_2[name], tmp_path, ROWS)
    prefix = (model.given(range(ROWS), "right")["labels"] == -100).numpy()
    moved = differences(model, in_transformers(model), "sliding_window", 4096).numpy()
    assert moved[~prefix].max() > 100 * LOGITS
    assert moved[prefix].max() == 0
