import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.adapters import Adapter, Provenance, open_adapter, save_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING
from pamctl.adapters.formats import peft_patterns, peft_settings
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.module_names import SPELLINGS
from pamctl.refusal import Refusal
from tests.adapter_cases import (
    CONV_IDS,
    DTYPES,
    EMBEDDING_IDS,
    KEY,
    PREFIX,
    Q_PROJ,
    SIZES,
    adapters,
    delta,
    random_adapter,
    random_factors,
    same_deltas,
    saved,
    write_peft,
)

A, B = f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"
PAIR = {A: np.ones((4, 16), np.float32), B: np.ones((16, 4), np.float32)}


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


REFUSED_CONFIGS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"trainable_token_indices": [1]},
    {"target_parameters": ["experts.gate"]},
    {"layer_replication": [[0, 2]]},
    {"alora_invocation_tokens": [7]},
    {"use_qalora": True},
    {"use_bdlora": {"nblocks": 2}},
    {"use_bdlora": {}},
    {"kasa_config": {"beta": 1}},
    {"kasa_config": {}},
    {"arrow_config": {"top_k": 3}},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_16"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "corda"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": "lora_ga"},
    {"init_lora_weights": "mica"},
    {"init_lora_weights": ["gaussian"]},
    {"init_lora_weights": {}},
    {"peft_type": "LOHA"},
    {"peft_type": "LOKR"},
    {"peft_type": "ADALORA"},
    {"peft_type": "TRAINABLE_TOKENS"},
    {"peft_type": None},
    {"peft_type": ["LORA"]},
    {"a_field_of_tomorrow": 3},
    {"a_field_of_tomorrow": [[[]]]},
    {"r": 8},
    {"r": "4"},
    {"r": 0},
    {"r": True},
    {"r": [4, 1]},
    {"lora_alpha": 0},
    {"lora_alpha": None},
    {"lora_alpha": True},
    {"lora_alpha": float("nan")},
    {"lora_alpha": float("-inf")},
    {"lora_alpha": 10**400},
    {"lora_alpha": 1e300},
    {"lora_alpha": 1e-60},
    {"lora_alpha": {}},
    {"use_rslora": "yes"},
    {"use_rslora": 1},
    {"fan_in_fan_out": "no"},
    {"lora_bias": []},
    {"bias": "some"},
    {"bias": ["all"]},
    {"base_model_name_or_path": 3},
    {"modules_to_save": "lm_head"},
    {"modules_to_save": [""]},
    {"modules_to_save": ["lm_head", 3]},
    {"modules_to_save": {"lm_head": 1}},
    {"rank_pattern": {"q_proj": 2}},
    {"rank_pattern": {"q_proj": "4"}},
    {"rank_pattern": {"q_proj": [4]}},
    {"rank_pattern": ["q_proj"]},
    {"rank_pattern": 4},
    {"alpha_pattern": {"(": 2}},
    {"alpha_pattern": {"(" * 5000 + ")" * 5000: 2}},
    {"alpha_pattern": {"q{99999999999}": 2}},
    {"alpha_pattern": {r"\p{L}+": 2}},
    {"alpha_pattern": {"q_proj": -0.0}},
]


@pytest.mark.parametrize("config", REFUSED_CONFIGS, ids=lambda config: str(config)[:60])
def test_a_config_that_is_not_a_plain_lora_is_refused_with_the_field_named(
    config: dict, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as refusal:
        open_adapter(write_peft(tmp_path, **config))
    (field,) = config
    told = {"r": "rank", "rank_pattern": "rank", "lora_alpha": "scale"}.get(field, field)
    assert field in refusal.value.what or told in refusal.value.what
    assert len(refusal.value.what) < 1000
    assert refusal.value.way_on


@pytest.mark.parametrize("alpha", ["1e400", "-1e400", "NaN", "1e39", "0"])
def test_an_alpha_should_be_finite(alpha: str, tmp_path: Path) -> None:
    config = write_peft(tmp_path) / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', f'"lora_alpha": {alpha}'))
    with pytest.raises(Refusal, match="lora_alpha is") as refusal:
        open_adapter(tmp_path)
    assert "finite number other than 0" in refusal.value.way_on


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_a_config_that_peft_cannot_decode_is_refused(encoding: str, tmp_path: Path) -> None:
    config = write_peft(tmp_path) / "adapter_config.json"
    config.write_bytes(config.read_text().encode(encoding))
    with pytest.raises(Refusal, match=r"adapter_config\.json is not JSON"):
        open_adapter(tmp_path)


HOSTILE_PATTERNS = {
    "repeats in repeats": {r"(([\w.])+)+[^\w.]": 2},
    "nested counts": {r"((\w{0,99}){0,99}){0,99}[^\w.]": 2},
    "many": {rf"(\w*)*{number}!": 2 for number in range(100_000)},
    "many plain": {f"layer.{number}": 2 for number in range(100_000)},
}


def test_the_name_of_the_base_does_not_command_the_terminal(tmp_path: Path) -> None:
    write_peft(tmp_path, base_model_name_or_path="x\x1b[2J\nHint: run me")
    with pytest.raises(Refusal, match="the base model is") as refusal:
        open_adapter(tmp_path)
    assert refusal.value.what.isprintable()


@given(
    patterns=st.lists(st.from_regex(r"\^?(?:[ab1-]|\\?\.|\\-|a\|b){0,4}", fullmatch=True), unique=True),
    path=st.from_regex(r"[ab1-]{1,2}(?:\.[ab1-]{1,2}){0,2}", fullmatch=True),
)
def test_the_first_pattern_is_that_of_peft(patterns: list[str], path: str) -> None:
    """As peft's get_pattern_key has it; what can be looked up is."""
    peft = next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", path)), None)
    assert peft_patterns.PeftPatterns(Path("x"), "rank_pattern", patterns).first(path) == peft


def test_ranks_of_their_own_in_thousands_of_modules_are_looked_up_at_once() -> None:
    paths = [f"blocks.{number}.attn1.to_q" for number in range(20_000)]
    patterns = peft_patterns.PeftPatterns(Path("x"), "rank_pattern", map(re.escape, paths))
    assert [patterns.first(path) for path in paths] == list(map(re.escape, paths))


@pytest.mark.parametrize("case", HOSTILE_PATTERNS)
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_would_take_years_is_refused_in_time(
    case: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_patterns, "SECONDS_TO_MATCH", 0.2)
    tensors = {
        f"{PREFIX}{'layer.' * 20}{number}.lora_{factor}.weight": PAIR[A]
        for number in range(2000)
        for factor in "AB"
    }
    started = time.monotonic()
    with pytest.raises(Refusal, match=f"{field} takes longer than"):
        open_adapter(write_peft(tmp_path, tensors, **{field: HOSTILE_PATTERNS[case]}))
    assert time.monotonic() - started < 10


def test_names_to_save_whole_that_take_long_to_match_are_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_patterns, "SECONDS_TO_MATCH", 0.2)
    names = ["y" * (number % 300) + str(number) for number in range(30_000)] + ["x" * 199]
    tensors = {f"{PREFIX}{'a.' * 100}{number}{'x' * 199}.weight": ones(1) for number in range(1000)}
    started = time.monotonic()
    with pytest.raises(Refusal, match="modules_to_save takes longer than"):
        open_adapter(write_peft(tmp_path, {**PAIR, **tensors}, modules_to_save=names))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("names", "path", "saved_whole"),
    [
        (["head"], "lm_head", True),
        (["head"], "lm_head.linear", True),
        (["head"], "header", False),
        (["head"], "model.head.dense", True),
        (["model.head"], "head", False),
        (["a", "b"], "x.b.c.d", True),
        ([], "head", False),
    ],
)
def test_names_to_save_whole_are_matched_as_peft_does(
    names: list[str], path: str, saved_whole: bool, tmp_path: Path
) -> None:
    fields = {"peft_type": "LORA", "modules_to_save": names}
    assert peft_settings.PeftSettings(tmp_path, fields).saves_whole(path) == saved_whole
    modules = [".".join(path.split(".")[:length]) for length in range(1, path.count(".") + 2)]
    assert saved_whole == any(module.endswith(name) for module in modules for name in names)


@settings(max_examples=300)
@given(
    fields=st.dictionaries(
        st.sampled_from(sorted(peft_settings._KNOWN_FIELDS | set(peft_settings._CHANGES_THE_DELTA)))
        | st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_config_is_read_or_refused_in_two_lines(tmp_path_factory: Any, fields: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    try:
        opened = open_adapter(write_peft(folder, **fields))
    except Refusal:
        return
    assert np.isfinite(delta(opened.modules[Q_PROJ])).all()


def test_fields_without_effect_and_empty_unknown_ones_are_accepted(tmp_path: Path) -> None:
    config = {
        "a_field_of_tomorrow": None,
        "lora_dropout": 0.1,
        "task_type": "CAUSAL_LM",
        "layers_to_transform": [0],
    }
    assert list(open_adapter(write_peft(tmp_path, **config)).modules) == [Q_PROJ]


REFUSED_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "no tensors": ({}, "holds no tensors"),
    "A alone": ({A: PAIR[A]}, "there is only lora_A"),
    "B alone": ({B: PAIR[B]}, "there is only lora_B"),
    "a full module that nothing announces": ({**PAIR, f"{PREFIX}score.weight": PAIR[A]}, "score.weight is"),
    "a bias that nothing announces": ({**PAIR, f"{PREFIX}norm.bias": ones(4)}, "norm.bias is neither"),
    "the base's own weight": (
        {**PAIR, f"{KEY}.base_layer.weight": ones(16, 16)},
        "base_layer.weight is neither",
    ),
    "the copy beside a full module": (
        {**PAIR, f"{PREFIX}score.original_module.weight": PAIR[A]},
        "original_module.weight is no factor",
    ),
    "a bias of lora_B of another size": (
        {**PAIR, f"{KEY}.lora_B.bias": ones(4)},
        "lora_B.bias [4] is no bias",
    ),
    "a bias of lora_B without factors": (
        {**PAIR, f"{PREFIX}other.lora_B.bias": ones(16)},
        "other.lora_B.bias [16] is no bias",
    ),
    "DoRA magnitudes": ({**PAIR, f"{KEY}.lora_magnitude_vector": ones(16)}, "magnitude"),
    "DoRA magnitudes in a raw dump": (
        {**PAIR, f"{KEY}.lora_magnitude_vector.default.weight": ones(16)},
        "magnitude",
    ),
    "AdaLoRA": ({**PAIR, f"{KEY}.lora_E": ones(4, 1)}, "lora_E"),
    "KaSA": ({**PAIR, f"{KEY}.lora_diag": ones(4)}, "lora_diag"),
    "LoHa": ({**PAIR, f"{KEY}.hada_w1_a": PAIR[A]}, "hada_w1_a"),
    "LoKr": ({**PAIR, f"{KEY}.lokr_w1": PAIR[A]}, "lokr_w1"),
    "trainable tokens": (
        {**PAIR, f"{PREFIX}e.token_adapter.trainable_tokens_delta": PAIR[A]},
        "trainable_tokens",
    ),
    "half an embedding": ({**PAIR, f"{PREFIX}e.lora_embedding_A": PAIR[A]}, "there is only lora_embedding_A"),
    "two kinds of factors": (
        {**PAIR, f"{KEY}.lora_embedding_A": PAIR[A], f"{KEY}.lora_embedding_B": PAIR[B]},
        "of another kind",
    ),
    "ranks that differ": ({A: PAIR[A], B: ones(16, 3)}, "are not the factors"),
    "a convolution in B alone": ({A: PAIR[A], B: ones(16, 4, 1)}, "are not the factors"),
    "a convolution in A alone": ({A: ones(4, 16, 1, 1), B: PAIR[B]}, "are not the factors"),
    "a kernel in B": ({A: ones(4, 16, 3, 3), B: ones(16, 4, 3, 3)}, "are not the factors"),
    "a kernel of four axes": ({A: ones(4, 2, 1, 1, 1, 1), B: ones(2, 4, 1, 1, 1, 1)}, "are not the factors"),
    "a grouped convolution": ({A: ones(4, 16, 3, 3), B: ones(16, 2, 1, 1)}, "a convolution in 2 groups"),
    "an empty side": ({A: ones(4, 0), B: PAIR[B]}, "are not the factors"),
    "an empty rank": ({A: ones(0, 16), B: ones(16, 0)}, "are not the factors"),
    "one axis": ({A: ones(4), B: ones(4)}, "are not the factors"),
    "no axis": ({A: ones(), B: ones()}, "are not the factors"),
    "integers": ({A: np.ones((4, 16), np.int32), B: PAIR[B]}, "is I32"),
    "one module twice": (
        {**PAIR, **{k.replace("model.language_model", "language_model.model"): v for k, v in PAIR.items()}},
        "are one module",
    ),
    "one module with the prefix and without": (
        {**PAIR, **{key.removeprefix(PREFIX): value for key, value in PAIR.items()}},
        "are one tensor",
    ),
    "two adapters in a raw dump": (
        {
            f"{KEY}.lora_{factor}.{name}.weight": PAIR[A if factor == "A" else B]
            for factor in "AB"
            for name in ("one", "two")
        },
        "are one tensor",
    ),
    "another adapter's module in a raw dump": (
        {
            f"{KEY}.lora_A.one.weight": PAIR[A],
            f"{KEY}.lora_B.one.weight": PAIR[B],
            f"{PREFIX}lm_head.lora_A.two.weight": PAIR[A],
            f"{PREFIX}lm_head.lora_B.two.weight": PAIR[B],
        },
        "several adapters: one, two",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_are_not_a_plain_lora_are_refused_by_name(case: str, tmp_path: Path) -> None:
    tensors, told = REFUSED_TENSORS[case]
    with pytest.raises(Refusal) as refusal:
        open_adapter(write_peft(tmp_path, tensors))
    assert told in refusal.value.what
    assert refusal.value.way_on


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.removeprefix(PREFIX),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace(".weight", ".second.weight"),
    ],
    ids=["no prefix", "raw dump", "raw dump under a name"],
)
def test_names_as_other_programs_leave_them_are_the_same_adapter(renamed: Any, tmp_path: Path) -> None:
    plain = open_adapter(write_peft(tmp_path / "plain"))
    other = write_peft(tmp_path / "other", {renamed(name): values for name, values in PAIR.items()})
    assert open_adapter(other).fingerprint == plain.fingerprint


def test_without_its_config_a_peft_file_is_refused(tmp_path: Path) -> None:
    (write_peft(tmp_path) / "adapter_config.json").unlink()
    with pytest.raises(Refusal, match=r"holds no adapter_config\.json"):
        open_adapter(tmp_path)


SCORE = np.arange(12, dtype=np.float16).reshape(3, 4)
EXTRAS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "modules_to_save": (
        {f"{PREFIX}score.weight": SCORE},
        {"modules_to_save": ["score"]},
        {"score.weight": "module"},
    ),
    "modules_to_save as older releases spell it": (
        {f"{PREFIX}score.modules_to_save.weight": SCORE},
        {"modules_to_save": ["score"]},
        {"score.weight": "module"},
    ),
    "modules_to_save in a raw dump": (
        {f"{PREFIX}score.modules_to_save.default.weight": SCORE},
        {},
        {"score.weight": "module"},
    ),
    "what lies in modules_to_save in a raw dump under a name": (
        {f"{PREFIX}score.modules_to_save.second.{leaf}": SCORE for leaf in ("inner.weight", "gain")},
        {},
        {"score.inner.weight": "module", "score.gain": "module"},
    ),
    "what lies in modules_to_save": (
        {f"{PREFIX}model.multi_modal_projector.linear.{leaf}": SCORE for leaf in ("weight", "bias")},
        {"modules_to_save": ["projector"]},
        {f"multi_modal_projector.linear.{leaf}": "module" for leaf in ("weight", "bias")},
    ),
    "a resized embedding": (
        {f"{PREFIX}model.language_model.embed_tokens.weight": SCORE},
        {},
        {"language_model.embed_tokens.weight": "embedding"},
    ),
    "a base's biases": (
        {f"{PREFIX}norm.bias": SCORE[0], f"{KEY}.base_layer.bias": SCORE[0]},
        {"bias": "all"},
        {"norm.bias": "bias", f"{Q_PROJ}.bias": "bias"},
    ),
    "adapted modules' biases": (
        {f"{KEY}.base_layer.bias": SCORE[0]},
        {"bias": "lora_only"},
        {f"{Q_PROJ}.bias": "bias"},
    ),
    "biases of lora_B": (
        {f"{KEY}.lora_B.bias": np.arange(16, dtype=np.float16)},
        {"lora_bias": True},
        {f"{Q_PROJ}.lora_bias": "lora_bias"},
    ),
}


@pytest.mark.parametrize("case", EXTRAS)
def test_what_is_no_factor_passes_through_to_peft_unchanged(case: str, tmp_path: Path) -> None:
    tensors, config, roles = EXTRAS[case]
    named = ".second." if any(".second." in name for name in tensors) else "."
    pair = {name.replace(".weight", f"{named}weight"): values for name, values in PAIR.items()}
    opened = open_adapter(write_peft(tmp_path / "in", {**pair, **tensors}, **config))
    assert {name: extra.role for name, extra in opened.extras.items()} == roles
    again = open_adapter(saved(opened, tmp_path / "out"))
    assert again.fingerprint == opened.fingerprint
    for name, extra in opened.extras.items():
        scale = 2 if extra.role == "lora_bias" else 1  # alpha / r of `write_peft`, folded in
        given = next(iter(tensors.values()))
        np.testing.assert_array_equal(again.extras[name].read(), scale * given)
        assert again.extras[name].dtype == extra.dtype


def test_a_bias_of_some_modules_only_keeps_the_fingerprint_though_peft_wants_one_of_each(
    tmp_path: Path,
) -> None:
    modules = {module: random_factors(0, *sizes) for module, sizes in SIZES.items()}
    bias = np.ones(SIZES[Q_PROJ][1], np.float32)
    extras = {f"{Q_PROJ}.lora_bias": Extra("lora_bias", bias.shape, "F32", lambda: bias)}
    adapter = Adapter(modules, Provenance("merged", "merged"), extras=extras)
    again = open_adapter(saved(adapter, tmp_path / "a"))
    assert len(again.extras) == len(SIZES)
    assert again.fingerprint == adapter.fingerprint


def carrying(module: str, role: Any) -> dict[str, Extra]:
    values = np.ones(16, np.float32)
    return {
        f"{module}.{role if role == 'lora_bias' else 'weight'}": Extra(role, (16,), "F32", lambda: values)
    }


def test_what_peft_would_not_load_is_not_written(tmp_path: Path) -> None:
    table = replace(random_factors(0, 9, 5), layer=EMBEDDING)
    biased = Adapter(
        {"table": table, Q_PROJ: random_factors(0, 16, 16)}, extras=carrying(Q_PROJ, "lora_bias")
    )
    with pytest.raises(Refusal, match=rf"adapts the embedding table and carries {Q_PROJ}\.lora_bias"):
        saved(biased, tmp_path / "biased")
    replaced = Adapter({Q_PROJ: random_factors(0, 16, 16)}, extras=carrying(Q_PROJ, "module"))
    with pytest.raises(Refusal, match=rf"both adapts the module of {Q_PROJ}\.weight and replaces"):
        saved(replaced, tmp_path / "replaced")


def test_a_name_that_ends_as_another_does_keeps_its_own_rank(tmp_path: Path) -> None:
    """peft takes the first pattern that matches the end of a name."""
    ranks = {"up": 2, "block.up": 4, "deep.block.up": 3}
    modules = {module: random_factors(0, 5, 6, rank) for module, rank in ranks.items()}
    for chosen in (ranks, {**ranks, "block.up": 1}, {**ranks, "up": 7}):
        modules = {module: random_factors(0, 5, 6, rank) for module, rank in chosen.items()}
        folder = tmp_path / "-".join(map(str, chosen.values()))
        folder.mkdir()
        save_adapter(Adapter(modules), folder, "peft", WriteOptions(compact=True))
        shapes = open_adapter(folder).shapes
        assert {module: shape.rank for module, shape in shapes.items()} == chosen


def test_a_uniform_rank_is_written_without_patterns(tmp_path: Path) -> None:
    config = json.loads(
        (saved(random_adapter(scale=0.5), tmp_path / "a") / "adapter_config.json").read_text()
    )
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert not config["use_rslora"]


def test_a_path_in_a_tensor_name_touches_no_file(tmp_path: Path) -> None:
    tensors = {f"{PREFIX}../../x.lora_A.weight": PAIR[A], f"{PREFIX}../../x.lora_B.weight": PAIR[B]}
    opened = open_adapter(write_peft(tmp_path / "in" / "here", tensors))
    saved(opened, tmp_path / "out" / "here")
    assert list(opened.modules) == ["../../x"]
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 2}, 0.5),
        ({"lora_alpha": -4}, -1.0),
        ({"lora_alpha": 2.5}, 0.625),
        ({"r": 4.0}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 1}}, 0.25),
        ({"alpha_pattern": {"proj": 1}}, 2.0),
        ({"alpha_pattern": {r".*_proj": 1, "q_proj": 4}}, 0.25),
        ({"alpha_pattern": {"self_attn.q_proj": 4, "q_proj": 1}}, 1.0),
        ({"r": 9, "rank_pattern": {r"layers\.0\..*": 4}}, 2.0),
        ({"r": 9, "rank_pattern": {"q_proj": 4}, "use_rslora": True}, 4.0),
        ({"alpha_pattern": {"[[q]_proj": 1}}, 0.25),
    ],
    ids=str,
)
def test_the_scale_follows_pefts_rules(config: dict, scale: float, tmp_path: Path) -> None:
    assert open_adapter(write_peft(tmp_path, **config)).modules[Q_PROJ].scale == scale


def test_a_minimal_config_means_pefts_defaults(tmp_path: Path) -> None:
    tensors = {A: np.ones((8, 16), np.float32), B: np.ones((16, 8), np.float32)}
    write_peft(tmp_path, tensors)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert open_adapter(tmp_path).modules[Q_PROJ].scale == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, '{"r": 4, "r": 8}', "1" * 5000])
def test_a_damaged_config_is_refused(text: str, tmp_path: Path) -> None:
    write_peft(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(Refusal, match=r"adapter_config\.json"):
        open_adapter(tmp_path)


def test_opening_reads_no_numbers_and_nan_is_refused_when_they_are_read(tmp_path: Path) -> None:
    opened = open_adapter(write_peft(tmp_path, {A: np.full((4, 16), np.nan, np.float32), B: PAIR[B]}))
    with pytest.raises(Refusal, match=r"lora_A\.weight holds NaN"):
        opened.modules[Q_PROJ]


@pytest.mark.parametrize(
    ("base_model", "written"),
    [
        ("google/paligemma-3b-pt-224", "google/paligemma-3b-pt-224"),
        ("/home/someone/models/paligemma", "paligemma"),
        ("./models/paligemma", "paligemma"),
        (r"C:\models\paligemma", "paligemma"),
        (None, None),
    ],
)
def test_the_base_is_written_without_a_path_of_this_machine(
    base_model: str | None, written: str | None, tmp_path: Path
) -> None:
    adapter = Adapter({Q_PROJ: random_factors(0, 16, 16)}, base_model=base_model)
    config = json.loads((saved(adapter, tmp_path / "a") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == written


@settings(max_examples=60)
@given(
    adapter=adapters(conv=CONV_IDS, embedding=EMBEDDING_IDS),
    dtype=st.sampled_from(DTYPES),
    compact=st.booleans(),
    spelling=st.sampled_from(SPELLINGS),
)
def test_what_is_written_is_read_with_the_same_deltas(
    tmp_path_factory: Any, adapter: Adapter, dtype: str, compact: bool, spelling: str
) -> None:
    options = WriteOptions(dtype, compact, spelling)
    folder = tmp_path_factory.mktemp("written")
    save_adapter(adapter, folder, "peft", options)
    opened = open_adapter(folder)
    same_deltas(opened, adapter, dtype)
    if dtype == "F32":
        assert opened.fingerprint == adapter.fingerprint
    ranks = {module: shape.rank for module, shape in adapter.shapes.items()}
    expected = ranks if compact else dict.fromkeys(ranks, max(ranks.values()))
    assert {module: shape.rank for module, shape in opened.shapes.items()} == expected
    assert {opened.modules[module].scale for module in ranks} == {1.0}


@pytest.mark.parametrize(
    "spelling",
    [
        {
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.",
            "model.multi": "multi",
        },
        {"vision_model.": ""},
    ],
    ids=["transformers before 4.52", "transformers 5"],
)
def test_every_spelling_of_paligemma_is_the_same_adapter(spelling: dict[str, str], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    adapter = random_adapter()
    file = saved(adapter, tmp_path / "a") / "adapter_model.safetensors"
    tensors = load_file(file)
    for written, other in spelling.items():
        tensors = {key.replace(written, other): value for key, value in tensors.items()}
    save_file(tensors, file)
    assert open_adapter(tmp_path / "a").fingerprint == adapter.fingerprint
