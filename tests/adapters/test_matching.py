from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter, write_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.flattening import flattened
from pamctl.adapters.matching import brought_together, dotted, in_company, matched, renamed_like
from pamctl.alignment import align
from pamctl.conversion import convert
from pamctl.inspection import relate
from pamctl.merging import merge
from pamctl.refusal import Refusal
from tests.adapter_cases import delta, random_factors, write_peft

UNET = [
    "conv_in",
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.resnets.0.time_emb_proj",
    "time_embedding.linear_1",
]
TEXT = ["layers.0.mlp.up_proj", "layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj"]
TOWER = [f"language_model.{path}" for path in TEXT]
BARE = [f"model.{path}" for path in TEXT]


def adapter_of(modules: list[str], name: str = "adapter", base: str | None = None, seed: int = 0) -> Adapter:
    factors = {module: random_factors(seed + i, 6 + len(module) % 3, 5) for i, module in enumerate(modules)}
    return Adapter(factors, base_model=base, name=name)


def under(names: Callable[[str], str], adapter: Adapter, name: str = "other") -> Adapter:
    modules = {names(module): factors for module, factors in adapter.modules.items()}
    return Adapter(modules, base_model=adapter.base_model, name=name)


def assert_same_factors(one: Mapping[str, LoraFactors], two: Mapping[str, LoraFactors]) -> None:
    assert one.keys() == two.keys()
    for module in one:
        np.testing.assert_array_equal(one[module].a, two[module].a)
        np.testing.assert_array_equal(one[module].b, two[module].b)


def test_flattened_ids_become_the_dotted_ones_of_the_others_and_the_rest_stay() -> None:
    peft = adapter_of([*UNET[:4], UNET[5]])
    kohya = under(flattened, adapter_of(UNET))
    for adapters in ((peft, kohya), (kohya, peft)):
        found = {adapter.name: adapter for adapter in matched(adapters)}
        assert found["adapter"] is peft
        assert set(found["other"].shapes) == {*peft.shapes, flattened(UNET[4])}
        for module in peft.shapes:
            np.testing.assert_array_equal(
                found["other"].modules[module].a, kohya.modules[flattened(module)].a
            )


def test_a_flattened_id_is_found_in_every_spelling_of_the_others() -> None:
    peft = adapter_of(["vision_tower.encoder.layers.0.mlp.fc1"])
    kohya = under(lambda _: "model_vision_tower_vision_model_encoder_layers_0_mlp_fc1", peft)
    assert list(matched([kohya, peft])[0].shapes) == list(peft.shapes)


def test_adapters_with_common_ids_and_kohya_ones_alone_are_given_back_as_they_are() -> None:
    one, two = adapter_of(UNET), adapter_of(UNET, seed=9)
    assert matched([one, two]) == [one, two]
    flat = [under(flattened, each) for each in (one, two)]
    assert matched(flat) == flat


def test_an_id_that_two_dotted_ones_flatten_to_is_refused() -> None:
    both = adapter_of(["a.b_0.c", "a_b.0.c"], name="both")
    with pytest.raises(
        Refusal, match=r"a_b_0_c is the flattened name of a\.b_0\.c and of a_b\.0\.c, both in"
    ):
        matched([both, adapter_of(["a_b_0_c"])])


def test_two_modules_that_become_one_are_refused() -> None:
    twice = adapter_of(["language_model_layers_0_mlp_up_proj", "language_model_model_layers_0_mlp_up_proj"])
    with pytest.raises(Refusal, match="are one module"):
        matched([twice, adapter_of(TOWER)])


def test_modules_of_other_sizes_are_refused_under_their_common_id() -> None:
    kohya = Adapter({flattened(UNET[3]): random_factors(0, 4, 4)}, name="small")
    with pytest.raises(Refusal, match=r"attn1\.to_q is 4x4 in small and"):
        brought_together([kohya, adapter_of(UNET)])


def test_a_bare_language_model_is_a_text_tower_only_where_the_bases_agree() -> None:
    tower, bare = adapter_of(TOWER, "tower", "org/vlm"), adapter_of(BARE, "bare", "org/vlm")
    assert list(matched([bare, tower])[0].shapes) == TOWER
    for base in (None, "org/llm"):
        other = adapter_of(BARE, "bare", base)
        with pytest.raises(
            Refusal, match=r"no text module in common: the one adapts model\.layers"
        ) as refusal:
            brought_together([tower, other])
        assert "pamctl convert bare -o RENAMED --names-from tower" in refusal.value.way_on
        assert list(renamed_like(other, tower).shapes) == TOWER
        assert list(renamed_like(tower, other).shapes) == BARE


def test_a_common_head_does_not_hide_that_the_text_has_two_names() -> None:
    with pytest.raises(Refusal, match="no text module in common"):
        brought_together([adapter_of([*TOWER, "lm_head"]), adapter_of([*BARE, "lm_head"])])


def test_extras_are_renamed_with_their_modules() -> None:
    bias = Extra("bias", (5,), "F32", lambda: np.zeros(5, np.float32))
    bare = Adapter(adapter_of(BARE).modules, base_model="b", extras={f"{BARE[0]}.bias": bias})
    assert list(matched([bare, adapter_of(TOWER, base="b")])[0].extras) == [f"{TOWER[0]}.bias"]


def test_two_extras_do_not_become_one() -> None:
    bias = Extra("bias", (5,), "F32", lambda: np.zeros(5, np.float32))
    names = (f"{BARE[0]}.bias", f"{TOWER[0]}.bias")
    both = Adapter(adapter_of(BARE).modules, base_model="b", extras=dict.fromkeys(names, bias))
    with pytest.raises(Refusal, match=f"two tensors {TOWER[0]}.bias"):
        matched([both, adapter_of(TOWER, base="b")])


def test_llavas_projector_beside_the_factors_tells_that_they_are_of_a_text_tower(tmp_path: Path) -> None:
    projector = Extra("module", (5,), "F32", lambda: np.zeros(5, np.float32))
    bare = Adapter(adapter_of(BARE).modules, extras={"multi_modal_projector.linear_1.bias": projector})
    found = in_company(bare)
    assert list(found.shapes) == TOWER
    save_adapter(found, tmp_path)
    assert list(open_adapter(tmp_path).shapes) == TOWER
    head = Adapter(bare.modules, extras={"lm_head.weight": projector})
    assert in_company(head) is head


def test_names_from_another_adapter_fit_or_are_refused() -> None:
    other = adapter_of(TOWER, "other")
    flat = under(lambda id: flattened(f"model.{id.removeprefix('language_model.')}"), other, "flat")
    assert list(renamed_like(flat, other).shapes) == TOWER
    with pytest.raises(
        Refusal, match="model_layers_7_x of flat is a flattened path that cannot be taken apart"
    ):
        renamed_like(adapter_of(["model_layers_7_x"], "flat"), other)
    with pytest.raises(Refusal, match="no module in common"):
        renamed_like(adapter_of(UNET, "unet"), other)
    with pytest.raises(
        Refusal, match=r"multi_modal_projector\.linear of whole is no part of the language model"
    ):
        renamed_like(adapter_of([*TOWER, "multi_modal_projector.linear"], "whole"), adapter_of(BARE))
    vision = "vision_tower.encoder.layers.0.mlp.fc1"
    whole = adapter_of([vision, *TOWER])
    assert renamed_like(whole, adapter_of([vision])) is whole


def test_names_of_one_word_are_the_models_own(tmp_path: Path) -> None:
    plain = adapter_of(["fc", "conv1x1", "my_proj", "lin"], "model")
    write_adapter(plain, tmp_path / "a.safetensors", "kohya")
    kohya = open_adapter(tmp_path / "a.safetensors")
    with pytest.raises(Refusal, match="my_proj of"):
        dotted(kohya)
    with pytest.raises(Refusal, match="my_proj of"):
        renamed_like(kohya, kohya)
    named = convert(renamed_like(kohya, plain)).adapter
    for format in ("peft", "mlx", "diffusers"):
        write_adapter(named, tmp_path / format, format)
        assert set(open_adapter(tmp_path / format).shapes) == set(plain.shapes)


def test_flattened_ids_are_taken_apart_by_known_words_or_refused_by_name() -> None:
    adapter = adapter_of(UNET)
    assert dotted(adapter) is adapter
    assert_same_factors(dotted(under(flattened, adapter)).modules, adapter.modules)
    with pytest.raises(Refusal, match="double_blocks_0_img_attn_qkv of flux is a flattened path") as refusal:
        dotted(adapter_of(["double_blocks_0_img_attn_qkv"], "flux"))
    assert "--names-from" in refusal.value.way_on


def test_nothing_is_read_by_renaming() -> None:
    read: list[str] = []

    def noted(module: str) -> LoraFactors:
        read.append(module)
        return source.modules[module]

    source = under(flattened, adapter_of(UNET))
    lazy = Adapter(type(source.modules)(source.shapes, noted))
    renamed = matched([lazy, adapter_of(UNET)])[0]
    assert not read
    assert renamed.modules[UNET[3]].rank == 4
    assert read == [flattened(UNET[3])]


def test_a_renamed_adapter_keeps_its_fingerprint_and_its_record_is_still_checked() -> None:
    from pamctl.adapters import Provenance

    tower = adapter_of(TOWER, base="b")
    plain = adapter_of(BARE, base="b")
    for recorded in (None, plain.fingerprint):
        record = Provenance("trained", "trained", fingerprint=recorded)
        renamed = matched([Adapter(plain.modules, record, "b"), tower])[0]
        assert renamed.fingerprint == plain.fingerprint != tower.fingerprint
    tampered = Adapter(plain.modules, replace(record, fingerprint="0" * 64), "b")
    with pytest.raises(Refusal, match="not those that its record describes"):
        _ = matched([tampered, tower])[0].fingerprint


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0)])
def test_a_kohya_and_a_peft_adapter_merge_to_the_mean_of_their_deltas(
    weights: tuple[float, float], tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    first, second = adapter_of(UNET, seed=1), adapter_of(UNET, seed=20)
    tensors = {}
    for module, factors in first.modules.items():
        name = f"lora_unet_{flattened(module)}"
        tensors |= {f"{name}.lora_down.weight": factors.a, f"{name}.lora_up.weight": factors.b}
        tensors[f"{name}.alpha"] = np.array(2, np.float32)
    save_file(tensors, tmp_path / "kohya.safetensors")
    names = {"a": "lora_A", "b": "lora_B"}
    write_peft(
        tmp_path / "peft",
        {
            f"base_model.model.{module}.{names[factor]}.weight": getattr(factors, factor)
            for module, factors in second.modules.items()
            for factor in "ab"
        },
        lora_alpha=4,
    )
    merged = merge(
        [open_adapter(tmp_path / "kohya.safetensors"), open_adapter(tmp_path / "peft")], weights=weights
    )
    assert list(merged.modules) == UNET
    share = weights[0] / sum(weights)
    for module, factors in merged.modules.items():
        mean = 0.5 * share * delta(first.modules[module]) + (1 - share) * delta(second.modules[module])
        np.testing.assert_allclose(delta(factors), mean, atol=1e-5)


def test_alignment_and_relations_see_the_same_modules_under_both_names() -> None:
    dotted_one, other = adapter_of(UNET), adapter_of(UNET, seed=9)
    flat = under(flattened, dotted_one)
    aligned, report = align(flat, to=other)
    expected, same = align(dotted_one, to=other)
    assert_same_factors(aligned.modules, expected.modules)
    assert report == same
    assert relate(flat, other)["cosine"] == relate(dotted_one, other)["cosine"]
    assert relate(flat, other)["shared_modules"] == len(UNET)
