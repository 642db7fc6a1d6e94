"""The embedded base is small, speaks any text, and is what its script makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.models.base import load_base
from pamctl.models.tokenizer import Tokenizer
from pamctl.tasks.embedded import embedded_tasks

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "pamctl" / "assets" / "tiny-paligemma"
SCRIPTS = ROOT / "fixtures" / "tiny_paligemma"
TOKENIZER = Tokenizer(FOLDER / "tokenizer.json", 100_000)


def test_it_is_at_most_six_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 6_000_000


@pytest.mark.parametrize("text", ["", " ", "what is it ?", "  two  spaces ", "Größe\t42 日本 😀 ▁ Ġ", "a\nb"])
def test_a_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode_suffix(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<")))
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode_suffix(text)) == text


def test_words_are_single_tokens_and_unknown_ones_are_bytes() -> None:
    assert len(TOKENIZER.encode_suffix("what color is the ring ?")) == 6 + 1
    assert len(TOKENIZER.encode_suffix("Größe")) == 1 + len("Größe".encode()) + 1


@pytest.mark.parametrize("name", embedded_tasks())
def test_every_text_of_a_task_fits_it(name: str) -> None:
    task = embedded_tasks()[name]
    for example in task.split("test"):
        prefix, suffix = TOKENIZER.encode_prefix(example.prefix), TOKENIZER.encode_suffix(example.suffix)
        assert len(prefix) + len(suffix) <= task.text_length
        assert len(suffix) <= task.max_new_tokens


def test_its_lora_defaults_adapt_the_language_tower() -> None:
    base = load_base()
    assert base.lora_defaults.rank == base.lora_defaults.alpha == 16
    assert base.lora_defaults.targets == r"language_model\..*"


def script(code: str) -> str:
    """Run code beside the scripts that make the base."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_script_makes_this_tokenizer_and_configuration() -> None:
    told = script(
        "import json, pretrain as p; t = p.make_tokenizer()\n"
        "print(json.dumps([t.to_str(), p.configuration(t), p.PREPROCESSOR, p.TOKENIZER, p.LORA]))"
    )
    tokenizer, *others = json.loads(told)
    assert json.loads(tokenizer) == json.loads((FOLDER / "tokenizer.json").read_text())
    for made, name in zip(others, ("config", "preprocessor_config", "tokenizer_config", "lora"), strict=True):
        assert made == json.loads((FOLDER / f"{name}.json").read_text())


def test_the_script_trains(tmp_path: Path) -> None:
    script(
        "import sys, pretrain; pretrain.skills = lambda *_: None\n"
        f"options = ['-o', {str(tmp_path)!r}, '--steps', '201', '--batch-size', '2']\n"
        "pretrain.main(options, standalone_mode=False)"
    )
    assert load_base(str(tmp_path)).config == load_base().config
