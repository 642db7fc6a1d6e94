"""A stored adapter for each row of README's table of formats, not made by pamctl: read or refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.refusal import Refusal
from tests.adapter_cases import delta

FOLDER = Path(__file__).parents[1] / "fixtures" / "adapters"
DELTAS = json.loads((FOLDER / "deltas.json").read_text())
REFUSED = json.loads((FOLDER / "refused.json").read_text())


@pytest.mark.parametrize("name", DELTAS)
def test_a_stored_adapter_is_read_to_its_deltas(name: str) -> None:
    adapter = open_adapter(FOLDER / name, allow_pickle=name == "peft-bin")
    assert adapter.modules.keys() == DELTAS[name].keys()
    for module, factors in adapter.modules.items():
        np.testing.assert_allclose(delta(factors), DELTAS[name][module], rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_lora_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refusal) as refusal:
        open_adapter(FOLDER / "refused" / name)
    assert REFUSED[name] in refusal.value.what
    assert refusal.value.way_on


def test_every_stored_adapter_is_expected_to_be_something() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {*DELTAS, "refused"}
    assert {path.name for path in (FOLDER / "refused").iterdir()} == set(REFUSED)
