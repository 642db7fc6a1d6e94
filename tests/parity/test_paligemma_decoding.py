"""Greedy decoding against transformers' `generate`, token for token."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.decoding import greedy
from pamctl.models.paligemma import image_features
from pamctl.models.text import TextBatch
from pamctl.models.trees import Tree
from tests.parity.paligemma_cases import (
    CASES,
    Model,
    compiled,
    embedded_model,
    exact_products_on_one_core,
    in_transformers,
    random_model,
)

PROMPTS, NEW = 20, 8


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    with exact_products_on_one_core():
        yield


@compiled
def answers(config: PaliGemmaConfig, params: Tree, pixels: jax.Array, prefixes: TextBatch) -> jax.Array:
    """(b, NEW), padded behind <eos>."""
    features = image_features(config, params, {}, 1.0, pixels)
    return greedy(
        config, params, {}, 1.0, features, prefixes.tokens, prefixes.prefix_length, max_new_tokens=NEW
    )


def generated(theirs: Any, model: Model, eos: int) -> np.ndarray:
    """(b, NEW), padded behind `eos`."""
    given = model.given(range(PROMPTS), "left", suffixes=False)
    ids = theirs.generate(**given, max_new_tokens=NEW, do_sample=False, eos_token_id=eos, pad_token_id=0)
    ids = ids[:, given["input_ids"].shape[1] :].numpy()
    return np.pad(ids, ((0, 0), (0, NEW - ids.shape[1])))


def lengths(ids: np.ndarray, eos: int) -> np.ndarray:
    """Tokens of each answer before `eos`."""
    return np.cumprod(ids != eos, axis=1).sum(1)


@pytest.mark.parametrize("name", [*CASES, "embedded"])
def test_answers_are_the_same_token_for_token(name: str, tmp_path: Path) -> None:
    """The token that ends answers at the most different lengths stands for <eos>."""
    model = random_model(CASES[name], tmp_path, PROMPTS) if name in CASES else embedded_model(PROMPTS)
    theirs = in_transformers(model)
    endless = generated(theirs, model, eos=model.config.text.vocab_size)
    assert len(np.unique(endless, axis=0)) > 3
    eos = max(set(endless.flat) - {0}, key=lambda token: len(set(lengths(endless, token))))
    assert len(set(lengths(endless, eos))) > 2
    config = replace(model.config, eos_token_id=int(eos))
    found = answers(config, model.params, model.pixels, model.batch(PROMPTS, suffixes=False))
    np.testing.assert_array_equal(found, generated(theirs, model, int(eos)))
