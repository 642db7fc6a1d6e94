"""How a picture becomes the vision tower's input, to the last bit as transformers' PIL processor does it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pamctl.refusal import Refusal

_WAY_ON = "use the preprocessor_config.json of the checkpoint, such as google/paligemma-3b-pt-224's"


@dataclass(frozen=True)
class ImageProcessor:
    """RGB, resized to a square regardless of shape, rescaled and normalised.

    Attributes:
        size: side of the square in pixels.
        resample: PIL's filter for the resize.
        rescale: what a grey level 0..255 is multiplied by.
        mean: of red, green and blue, subtracted after that.
        std: of red, green and blue, divided by at last.
    """

    size: int = 224
    resample: Image.Resampling = Image.Resampling.BICUBIC
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @classmethod
    def from_file(cls, folder: Path) -> "ImageProcessor":
        """Read `folder`/preprocessor_config.json.

        Raises:
            Refusal: the file is missing, is not JSON, or asks for steps that are not done here.
        """
        path = folder / "preprocessor_config.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refusal(f"{folder} has no preprocessor_config.json", _WAY_ON) from None
        except ValueError as fault:
            raise Refusal(f"{path} is not JSON: {fault}", _WAY_ON) from fault
        return cls.from_dict(fields, str(path))

    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], source: str = "preprocessor_config.json"
    ) -> "ImageProcessor":
        """Read the parsed file; `source` is named in refusals."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if fields.get(step) is False:
                raise Refusal(f"{source}: {step} is false, it is always done here", _WAY_ON)
        for step in ("do_center_crop", "do_pad"):
            if fields.get(step):
                raise Refusal(f"{source}: {step} is true, it is never done here", _WAY_ON)
        size = fields.get("size", {"height": 224, "width": 224})
        if not isinstance(size, Mapping) or size.get("height") is None or size["height"] != size.get("width"):
            raise Refusal(f"{source}: size is {size}, not a square's height and width", _WAY_ON)
        try:
            resample = Image.Resampling(fields.get("resample", Image.Resampling.BICUBIC))
        except ValueError:
            raise Refusal(f"{source}: resample {fields['resample']!r} is no filter of PIL", _WAY_ON) from None
        return cls(
            size=int(size["height"]),
            resample=resample,
            rescale=float(fields.get("rescale_factor", 1 / 255)),
            mean=_channels(fields, "image_mean", source),
            std=_channels(fields, "image_std", source),
        )

    def to_json(self) -> str:
        """Return the text of a preprocessor_config.json that transformers reads as this processor."""
        fields = {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": self.mean,
            "image_processor_type": "SiglipImageProcessor",
            "image_std": self.std,
            "resample": int(self.resample),
            "rescale_factor": self.rescale,
            "size": {"height": self.size, "width": self.size},
        }
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Map a picture of any size and mode to (size, size, 3) float32, in [-1, 1] for PaliGemma."""
        square = np.asarray(_opaque(image).resize((self.size, self.size), self.resample))
        levels = (np.arange(256) * self.rescale).astype(np.float32)[:, None]
        table = (levels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return table[square, np.arange(3)]


def _opaque(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, what is transparent in it over white."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _channels(fields: Mapping[str, Any], name: str, source: str) -> tuple[float, float, float]:
    values = fields.get(name, (0.5, 0.5, 0.5))
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise Refusal(f"{source}: {name} is {values!r}, not three numbers", _WAY_ON)
    red, green, blue = (float(value) for value in values)
    return red, green, blue
