"""How the picture of an example gets into the page: small, as a data URI."""

import base64
import io
from collections.abc import Callable

from PIL import Image

Pictures = Callable[[str, str], Image.Image | None]
"""The picture of a task's example, by the names of both; None where it is not at hand."""
MOST = 224
"""Pixels of the longer side."""
CRISP = 128
"""Up to so many pixels a picture is kept exactly, as PNG; a larger one becomes JPEG."""
QUALITY = 80


def data_uri(image: Image.Image) -> str | None:
    """The picture in text; None where the file that it comes from is broken."""
    file = io.BytesIO()
    try:
        image = image.convert("RGB")
        image.thumbnail((MOST, MOST))
        if max(image.size) <= CRISP:
            image.save(file, "PNG", optimize=True)
            kind = "png"
        else:
            image.save(file, "JPEG", quality=QUALITY, optimize=True)
            kind = "jpeg"
    except (OSError, ValueError, SyntaxError):
        return None
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
