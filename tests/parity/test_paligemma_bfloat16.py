"""The model against transformers in bfloat16, where the order of roundings differs: means and best tokens."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.paligemma_cases import (
    CASES,
    exact_products_on_one_core,
    in_transformers,
    logits_of,
    random_model,
    torch,
)

ROWS = 12


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    with exact_products_on_one_core():
        yield


@pytest.mark.parametrize("name", ["two key heads", "both caps"])
def test_logits_agree_on_average(name: str, tmp_path: Path) -> None:
    model = random_model(CASES[name], tmp_path, ROWS)
    given = model.given(range(ROWS), "right")
    given["pixel_values"] = given["pixel_values"].to(torch.bfloat16)
    with torch.no_grad():
        logits = in_transformers(model).to(torch.bfloat16)(**given).logits.float()
    expected = logits[given["attention_mask"].bool()].numpy()
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    batch = model.batch(ROWS)
    found = model.real(np.asarray(logits_of(model.config, low, {}, 1.0, model.pixels, batch)), batch)
    assert expected.std() > 0.4
    assert np.abs(found - expected).mean() < 0.02
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.95
