"""transformers reads the embedded base whole: its processor gives the tokens that pamctl trains on."""

from pathlib import Path

import pytest
from PIL import Image

import pamctl
from pamctl.models.base import load_base

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

FOLDER = Path(pamctl.__file__).parent / "assets" / "tiny-paligemma"


@pytest.mark.parametrize("prompt", ["what is it ?", "Größe 42"])
def test_the_processor_gives_the_same_tokens(prompt: str) -> None:
    processor = transformers.PaliGemmaProcessor.from_pretrained(FOLDER)
    given = processor(images=Image.new("RGB", (32, 32)), text=f"<image>{prompt}", return_tensors="np")
    base = load_base()
    images = [processor.image_token_id] * base.config.vision.image_tokens
    assert given["input_ids"][0].tolist() == images + base.tokenizer.encode_prefix(prompt)
