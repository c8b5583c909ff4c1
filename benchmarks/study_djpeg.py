"""The original study's d-JPEG (2020), for comparison only, from its description and in array
operations.

The photo is encoded as JPEG at quality 9, 25 and 64. By its nearness in the depth map each pixel is
taken from one of the three decodes: above the 60th percentile from quality 64, from the 50th to the
60th from 25, the rest from 9. The composite is saved as JPEG at quality 50, so everything in it is
quantised a second time.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

FAR_QUALITY, MIDDLE_QUALITY, NEAR_QUALITY = 9, 25, 64
MIDDLE_PERCENTILE, NEAR_PERCENTILE = 50, 60
FINAL_QUALITY = 50


def study_djpeg(pixels: npt.NDArray[np.uint8], depth: npt.NDArray[np.uint8]) -> bytes:
    """The study's file of one photo.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        depth: uint8 (h, w), bright = near; resized to the photo if it has another size.
    """
    height, width = pixels.shape[:2]
    nearness = np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR))
    middle, near = np.percentile(nearness, [MIDDLE_PERCENTILE, NEAR_PERCENTILE])
    image = Image.fromarray(pixels)
    composite = _through_jpeg(image, FAR_QUALITY)
    for lowest, quality in ((nearness > middle, MIDDLE_QUALITY), (nearness > near, NEAR_QUALITY)):
        np.copyto(composite, _through_jpeg(image, quality), where=lowest[:, :, None])
    return _jpeg(Image.fromarray(composite), FINAL_QUALITY)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _through_jpeg(image: Image.Image, quality: int) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(_jpeg(image, quality))).convert("RGB"))
