import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.adapters import Adapter, open_adapter
from pamctl.refusal import Refusal
from tests.adapter_cases import (
    KEY,
    PREFIX,
    Q_PROJ,
    SIZES,
    delta,
    random_adapter,
    random_factors,
    saved,
    write_peft,
)

A, B = f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"
PAIR = {A: np.ones((4, 16), np.float32), B: np.ones((16, 4), np.float32)}

REFUSED_CONFIGS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"modules_to_save": "lm_head"},
    {"trainable_token_indices": [1]},
    {"target_parameters": ["experts.gate"]},
    {"layer_replication": [[0, 2]]},
    {"alora_invocation_tokens": [7]},
    {"use_qalora": True},
    {"use_bdlora": {"nblocks": 2}},
    {"kasa_config": {"beta": 1}},
    {"arrow_config": {"top_k": 3}},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_16"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": ["gaussian"]},
    {"peft_type": "LOHA"},
    {"peft_type": None},
    {"a_field_of_tomorrow": 3},
    {"r": 8},
    {"r": "4"},
    {"r": 0},
    {"lora_alpha": 0},
    {"lora_alpha": None},
    {"lora_alpha": True},
    {"rank_pattern": {"q_proj": 2}},
    {"rank_pattern": ["q_proj"]},
    {"alpha_pattern": {"(": 2}},
]


@pytest.mark.parametrize("config", REFUSED_CONFIGS, ids=str)
def test_a_config_that_is_not_a_plain_lora_is_refused_with_the_field_named(
    config: dict, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as refusal:
        open_adapter(write_peft(tmp_path, **config))
    (field,) = config
    assert field in refusal.value.what or field in ("r", "rank_pattern")
    assert refusal.value.way_on


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
    "a full module": ({**PAIR, f"{PREFIX}lm_head.weight": PAIR[A]}, "lm_head.weight"),
    "a bias": ({**PAIR, f"{KEY}.lora_B.bias": np.ones(16, np.float32)}, "lora_B.bias"),
    "DoRA magnitudes": ({**PAIR, f"{KEY}.lora_magnitude_vector": np.ones(16, np.float32)}, "magnitude"),
    "an embedding": ({**PAIR, f"{PREFIX}e.lora_embedding_A": PAIR[A]}, "lora_embedding_A"),
    "no prefix": (
        {key.removeprefix(PREFIX): value for key, value in PAIR.items()},
        "is not base_model.model.",
    ),
    "ranks that differ": ({A: PAIR[A], B: np.ones((16, 3), np.float32)}, "do not fit"),
    "a convolution": ({A: np.ones((4, 16, 1, 1), np.float32), B: PAIR[B]}, "do not fit"),
    "an empty side": ({A: np.ones((4, 0), np.float32), B: PAIR[B]}, "do not fit"),
    "integers": ({A: np.ones((4, 16), np.int32), B: PAIR[B]}, "is I32"),
    "one module twice": (
        {**PAIR, **{k.replace("model.language_model", "language_model.model"): v for k, v in PAIR.items()}},
        "are one module",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_are_not_a_plain_lora_are_refused_by_name(case: str, tmp_path: Path) -> None:
    tensors, told = REFUSED_TENSORS[case]
    with pytest.raises(Refusal) as refusal:
        open_adapter(write_peft(tmp_path, tensors))
    assert told in refusal.value.what


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
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 1}}, 0.25),
        ({"alpha_pattern": {"proj": 1}}, 2.0),
        ({"alpha_pattern": {r".*_proj": 1, "q_proj": 4}}, 0.25),
        ({"alpha_pattern": {"self_attn.q_proj": 4, "q_proj": 1}}, 1.0),
        ({"r": 9, "rank_pattern": {r"layers\.0\..*": 4}}, 2.0),
        ({"r": 9, "rank_pattern": {"q_proj": 4}, "use_rslora": True}, 4.0),
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


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000])
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


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    scale=st.sampled_from([1.0, 2.0, 0.25, 1 / 3, -1.5]),
)
def test_any_ranks_and_scale_come_back_as_the_same_adapter(
    tmp_path_factory: Any, ranks: list[int], scale: float
) -> None:
    modules = {
        module: random_factors(i, *SIZES[module], rank, scale)
        for i, (module, rank) in enumerate(zip(SIZES, ranks, strict=True))
    }
    adapter = Adapter(modules)
    opened = open_adapter(saved(adapter, tmp_path_factory.mktemp("round") / "a"))
    assert opened.fingerprint == adapter.fingerprint
    assert {shape.rank for shape in opened.shapes.values()} == {max(ranks)}
    for module, factors in opened.modules.items():
        np.testing.assert_allclose(delta(factors), delta(modules[module]), rtol=1e-5, atol=1e-5)


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
