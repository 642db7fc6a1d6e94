"""transformers' processors of pictures and texts give the pixels and tokens that pamctl trains on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pamctl
from pamctl.models.base import load_base
from pamctl.models.images import ImageProcessor

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

FOLDER = Path(pamctl.__file__).parent / "assets" / "tiny-paligemma"
TEXTS = [("what is it ?", "a red circle"), ("Größe 42", "7"), ("x", "")]


def picture(mode: str, width: int, height: int) -> Image.Image:
    """Random in every band, and in the palette where there is one."""
    rng = np.random.default_rng(3)
    bands = len(Image.new(mode, (1, 1)).getbands())
    drawn = Image.frombytes(mode, (width, height), rng.bytes(width * height * bands))
    if mode == "P":
        drawn.putpalette(rng.bytes(3 * 256))
    return drawn


@pytest.mark.parametrize("size", [32, 224, 448, 896])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "LA"])
def test_pixels_equal_the_pil_processors(mode: str, size: int) -> None:
    theirs = transformers.SiglipImageProcessorPil(size={"height": size, "width": size})
    for shape in ((size, size), (50, 20), (7, 290), (701, 333)):
        image = picture(mode, *shape)
        expected = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_array_equal(ImageProcessor(size=size).pixels(image), expected)


def test_settings_written_here_are_theirs(tmp_path: Path) -> None:
    processor = ImageProcessor(48, Image.Resampling.BILINEAR, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text(processor.to_json())
    theirs = transformers.SiglipImageProcessorPil.from_pretrained(tmp_path)
    image = picture("RGB", 60, 31)
    expected = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(processor.pixels(image), expected)


@pytest.mark.parametrize("images", [1, 3])
def test_the_processor_gives_the_same_tokens(images: int) -> None:
    """Token types and labels say which of them are the suffix."""
    processor = transformers.PaliGemmaProcessor.from_pretrained(FOLDER)
    given = processor(
        images=[[Image.new("RGB", (32, 20))] * images] * len(TEXTS),
        text=["<image>" * images + prompt for prompt, _ in TEXTS],
        suffix=[answer for _, answer in TEXTS],
        padding=True,
        return_tensors="np",
    )
    base = load_base()
    shown = [processor.image_token_id] * base.config.vision.image_tokens * images
    for row, (prompt, answer) in enumerate(TEXTS):
        prefix, suffix = [*shown, *base.tokenizer.encode_prefix(prompt)], base.tokenizer.encode_suffix(answer)
        real = given["attention_mask"][row] == 1
        assert given["input_ids"][row][real].tolist() == prefix + suffix
        assert given["token_type_ids"][row][real].tolist() == [0] * len(prefix) + [1] * len(suffix)
        assert given["labels"][row][real].tolist() == [-100] * len(prefix) + suffix
