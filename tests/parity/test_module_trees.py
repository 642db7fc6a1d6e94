"""Module ids against the real module trees of transformers and diffusers."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter, save_adapter
from pamctl.adapters.flattening import flattened, unflattened
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.matching import dotted, matched
from pamctl.adapters.module_names import SPELLINGS, canonical_ids, layout, target_name, tower, written_path
from tests.adapter_cases import random_factors
from tests.parity.module_trees import (
    DENOISERS,
    LANGUAGE_MODELS,
    LLAVA_LIKE,
    QWEN_LIKE,
    TEXT_ENCODERS,
    built,
    module_paths,
)

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

FAMILIES = {"llava": LLAVA_LIKE, "qwen2_vl": QWEN_LIKE, "plain": LANGUAGE_MODELS}
MODELS = [(family, name) for family, models in FAMILIES.items() for name in models]


def needs_diffusers(name: str) -> None:
    if name in DENOISERS:
        pytest.importorskip("diffusers")


@pytest.mark.parametrize(("family", "name"), MODELS)
def test_the_paths_of_transformers_5_are_read_and_written_again(family: str, name: str) -> None:
    paths = module_paths(name)
    ids = canonical_ids(paths)
    assert layout(ids.values()) == family
    assert [written_path(ids[path], "5", layout(ids.values())) for path in paths] == list(paths)
    assert {tower(id) for id in ids.values()} <= {
        "language_model",
        *(("vision_tower", "multi_modal_projector", "other") if family != "plain" else ("other",)),
    }


@pytest.mark.parametrize(("family", "name"), MODELS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_module_keeps_its_id_in_every_spelling(family: str, name: str, spelling: str) -> None:
    ids = sorted(canonical_ids(module_paths(name)).values())
    found = layout(ids)
    paths = [written_path(id, spelling, found) for id in ids]
    assert list(canonical_ids(paths).values()) == ids
    for id in ids:
        target = target_name(id, spelling, found)
        assert [path for path in paths if f".{path}".endswith(f".{target}")] == [
            written_path(id, spelling, found)
        ]


@pytest.mark.parametrize(("family", "name"), MODELS)
@pytest.mark.parametrize("spelling", ["4.57", "5"])
def test_peft_restores_every_module_and_adapts_no_other(
    family: str, name: str, spelling: str, tmp_path: Path
) -> None:
    """Every second module, so that one that is hit without being meant is seen."""
    peft = pytest.importorskip("peft")
    model = built(name)
    adapter = of_every_second_linear(name, model)
    save_adapter(adapter, tmp_path, "peft", WriteOptions(spelling=spelling))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for told in ("fan_in_fan_out is set", "Model has `tie_word_embeddings=True`"):
            warnings.filterwarnings("ignore", told)
        loaded = peft.PeftModel.from_pretrained(model, tmp_path)
    adapted = {
        path.removeprefix("base_model.model."): module
        for path, module in loaded.named_modules()
        if hasattr(module, "lora_A")
    }
    ids = canonical_ids(adapted)
    assert set(ids.values()) == set(adapter.shapes)
    for path, module in adapted.items():
        expected = adapter.modules[ids[path]]
        np.testing.assert_array_equal(module.lora_A["default"].weight.detach(), expected.a)
        np.testing.assert_array_equal(module.lora_B["default"].weight.detach(), expected.b)


@pytest.mark.parametrize(("family", "name"), MODELS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_adapter_of_the_whole_model_is_written_and_read_in_every_spelling(
    family: str, name: str, spelling: str, tmp_path: Path
) -> None:
    ids = sorted(canonical_ids(module_paths(name)).values())
    adapter = Adapter({id: random_factors(0, 3, 2, rank=1) for id in ids})
    save_adapter(adapter, tmp_path, "peft", WriteOptions(spelling=spelling))
    assert list(open_adapter(tmp_path).shapes) == list(adapter.shapes)


@pytest.mark.parametrize("name", [*LLAVA_LIKE, *QWEN_LIKE, *LANGUAGE_MODELS, *TEXT_ENCODERS, *DENOISERS])
def test_every_path_comes_back_exactly_from_its_flattened_form(name: str) -> None:
    needs_diffusers(name)
    paths = module_paths(name)
    assert [unflattened(flattened(path)) for path in paths] == list(paths)
    ids = set(canonical_ids(paths).values())
    adapter = Adapter({id: random_factors(0, 3, 2, rank=1) for id in ids})
    flat = Adapter({flattened(id): factors for id, factors in adapter.modules.items()})
    assert set(matched([flat, adapter])[0].shapes) == ids
    assert set(dotted(flat).shapes) == ids


@pytest.mark.parametrize("name", DENOISERS)
def test_a_denoisers_blocks_are_told_from_other_towers(name: str) -> None:
    needs_diffusers(name)
    towers = [tower(path) for path in module_paths(name)]
    assert set(towers) <= {"denoiser", "other"}
    assert towers.count("denoiser") > 0.9 * len(towers)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("chosen", ["every second", "outside the blocks"])
@pytest.mark.parametrize("format", ["peft", "diffusers"])
def test_the_modules_of_a_denoiser_are_adapted_and_no_other(
    name: str, chosen: str, format: str, tmp_path: Path
) -> None:
    """Flux' proj_out ends the paths of its single blocks' too, as HunyuanVideo's embedders end others."""
    needs_diffusers(name)
    peft = pytest.importorskip("peft")
    paths = module_paths(name)
    meant = set(paths[::2]) if chosen == "every second" else {path for path in paths if path.isidentifier()}
    adapter = Adapter({path: random_factors(0, 3, 2, rank=1) for path in meant})
    save_adapter(adapter, tmp_path, format)
    opened = open_adapter(tmp_path)
    assert set(opened.shapes) == meant
    if format == "peft":
        config = peft.LoraConfig.from_pretrained(tmp_path)
    else:
        said = json.loads(opened.origin.settings["lora_adapter_metadata"])  # type: ignore[union-attr]
        config = peft.LoraConfig(**{key.partition(".")[2]: value for key, value in said.items()})
    targeted = peft.tuners.tuners_utils.check_target_module_exists
    assert {path for path in paths if targeted(config, path)} == meant


def of_every_second_linear(name: str, model: Any) -> Adapter:
    import torch

    layers = {path: model.get_submodule(path) for path in module_paths(name)}
    linear = [path for path, layer in layers.items() if layer.weight.ndim == 2]
    linear = [path for path in linear if not isinstance(layers[path], torch.nn.Embedding)]
    ids, modules = canonical_ids(linear), {}
    for place, path in enumerate(linear[::2]):
        shape = layers[path].weight.shape
        # GPT-2 keeps its weights transposed
        outputs, inputs = shape if isinstance(layers[path], torch.nn.Linear) else shape[::-1]
        modules[ids[path]] = random_factors(place, inputs, outputs, rank=2)
    assert len(modules) < len(linear) > 6
    return Adapter(modules, base_model=name)
