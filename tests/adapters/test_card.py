"""The model card: what the Hub reads of it, and that no name from outside breaks it."""

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.card import card, code
from pamctl.adapters.factors import LoraFactors
from pamctl.adapters.provenance import BaseModel, Parent, Provenance
from pamctl.hub import is_repository_name

BASE = "google/paligemma-3b-pt-224"
VLM = "language_model.layers.0.self_attn.q_proj"
HOSTILE = [
    "a: b\n---\nlicense: mit",
    "`; rm -rf ~ #``",
    "<script>alert(1)</script>",
    "](javascript:x)",
    "```\n# Owned\n```",
    "|\u202e\x00|",
    "'\"{}[]!&*%@",
]


def adapter(*modules: str, base: str | None = BASE, provenance: Provenance | None = None) -> Adapter:
    factors = LoraFactors(np.ones((2, 3), np.float32), np.ones((4, 2), np.float32))
    return Adapter(dict.fromkeys(modules or (VLM,), factors), provenance, base)


def merged(**fields: object) -> Provenance:
    parents = (Parent("f" * 64, "org/first", "c" * 40), Parent("e" * 64))
    told = {"tasks": ("one", "two"), "parents": parents, "method": "average", "seed": 3} | fields
    return Provenance("merged", "merged", parameters={"weights": [0.5, 0.5], "space": "factor"}, **told)


def test_what_the_hub_reads():
    data = ModelCard(card(adapter(provenance=merged()), "peft")).data.to_dict()
    assert data == {
        "base_model": BASE,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["lora", "merge", "pamctl"],
    }


def test_what_a_person_reads():
    text = ModelCard(card(adapter(provenance=merged()), "peft")).text
    for said in (
        f"# LoRA adapter for `{BASE}`",
        "- modules: 1 (1 language_model)",
        "- rank: 2",
        "- method: `average`",
        "- `weights`: `[0.5, 0.5]`",
        "- seed: 3",
        "- tasks: `one`, `two`",
        f"- parent 1: `org/first`, commit `{'c' * 40}`, fingerprint `{'f' * 64}`",
        f"- parent 2: fingerprint `{'e' * 64}`",
        f'AutoModelForImageTextToText.from_pretrained("{BASE}")',
        'PeftModel.from_pretrained(model, "ORG/NAME")',
        "pamctl train-task TASK --global ORG/NAME -o next",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("format", "library", "said"),
    [
        ("peft", "peft", "PeftModel.from_pretrained"),
        ("diffusers", "pamctl", "pamctl convert ORG/NAME"),
        ("kohya", "pamctl", "pamctl convert ORG/NAME"),
        ("mlx", "mlx", "mlx_vlm.generate --model google/paligemma"),
        ("orbax", "pamctl", "pamctl convert ORG/NAME"),
    ],
)
def test_each_format_says_how_to_load_it(format, library, said):
    read = ModelCard(card(adapter(), format))
    assert read.data.library_name == library
    assert said in read.text


@pytest.mark.parametrize(
    ("module", "pipeline"),
    [
        (VLM, "image-text-to-text"),
        ("model.layers.0.self_attn.q_proj", "text-generation"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q", "text-to-image"),
        ("down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q", "text-to-image"),
        ("encoder.layer.0.query", None),
    ],
)
def test_the_pipeline_is_told_where_the_modules_tell_it(module, pipeline):
    assert ModelCard(card(adapter(module), "peft")).data.pipeline_tag == pipeline


@pytest.mark.parametrize("base", [None, "tiny-paligemma", "/home/someone/models/base", "./base", *HOSTILE])
def test_a_base_that_is_no_hub_name_is_not_said_to_be_one(base):
    written = card(adapter(base=base), "peft")
    data = ModelCard(written).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert '.from_pretrained("BASE")' in written
    assert "someone" not in written


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_from_outside_break_neither_yaml_nor_markdown(hostile):
    provenance = merged(
        tasks=(hostile,),
        method=hostile,
        base=BaseModel(hostile),
        parents=(Parent(hostile, hostile, hostile),),
        versions={hostile: hostile},
    )
    written = card(adapter(base=hostile, provenance=provenance), "peft")
    plain = card(
        adapter(base="base", provenance=merged(versions={"x": "y"}, parents=merged().parents[:1])), "peft"
    )
    assert ModelCard(written).data.to_dict() == ModelCard(plain).data.to_dict()
    # as many lines, each of the same kind as with harmless names
    assert [line[:2] for line in written.splitlines()] == [line[:2] for line in plain.splitlines()]


@given(st.text(max_size=40))
def test_code_is_one_line_between_two_fences_that_are_not_inside(text):
    written = code(text)
    fence = written[: len(written) - len(written.lstrip("`"))]
    assert written.isprintable()
    assert written.endswith(fence)
    assert fence not in written[len(fence) : -len(fence)].split("`" * (len(fence) + 1))
    assert text.count("`") == written.count("`") - 2 * len(fence)


@given(st.from_regex(r"[\w.-]{0,6}/?[\w./-]{0,6}", fullmatch=True))
def test_a_repository_name_is_what_the_hub_takes_for_one(name):
    try:
        validate_repo_id(name)
        valid = name.count("/") == 1
    except ValueError:
        valid = False
    assert is_repository_name(name) == valid


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_diffusers_loads_what_is_made_for_it(format):
    read = ModelCard(card(adapter("transformer_blocks.0.attn.to_q"), format))
    assert read.data.library_name == "diffusers"
    assert "pipeline.load_lora_weights" in read.text


def test_the_same_adapter_gives_the_same_card():
    assert card(adapter(provenance=merged()), "peft") == card(adapter(provenance=merged()), "peft")
