"""Pictures of every mode to pixels; equality with transformers is tested in tests/parity."""

import json

import numpy as np
import pytest
from PIL import Image

from pamctl.models.images import ImageProcessor
from pamctl.refusal import Refusal


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_a_square_in_range(mode):
    pixels = ImageProcessor(size=6).pixels(Image.new(mode, (5, 9)))
    assert pixels.shape == (6, 6, 3)
    assert pixels.dtype == np.float32
    assert np.abs(pixels).max() <= 1


def test_grey_levels_map_to_minus_one_and_one():
    square = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = ImageProcessor(size=16).pixels(Image.fromarray(square))
    np.testing.assert_allclose(pixels[..., 0], square / 127.5 - 1, atol=1e-6)
    assert (pixels.min(), pixels.max()) == (-1, 1)


def test_what_is_transparent_is_white():
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    np.testing.assert_array_equal(ImageProcessor(size=4).pixels(picture), np.ones((4, 4, 3)))


def test_mean_and_deviation_are_by_channel():
    processor = ImageProcessor(size=2, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    np.testing.assert_allclose(processor.pixels(Image.new("RGB", (2, 2), (255, 0, 0)))[0, 0], [1, -1, -0.5])


def test_written_settings_read_as_themselves(tmp_path):
    processor = ImageProcessor(32, Image.Resampling.BILINEAR, 1 / 200, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text(processor.to_json())
    assert ImageProcessor.from_file(tmp_path) == processor


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("do_resize", False),
        ("do_normalize", False),
        ("do_center_crop", True),
        ("size", {"shortest_edge": 224}),
        ("size", {"height": 224, "width": 200}),
        ("resample", 99),
        ("image_mean", [0.5]),
    ],
)
def test_steps_that_are_not_done_are_refused(field, value):
    fields = {**json.loads(ImageProcessor().to_json()), field: value}
    with pytest.raises(Refusal, match=field):
        ImageProcessor.from_dict(fields)


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(Refusal, match=r"no preprocessor_config\.json"):
        ImageProcessor.from_file(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(Refusal, match="is not JSON"):
        ImageProcessor.from_file(tmp_path)
