"""What `djpeg --lossless` does with a photo."""

from __future__ import annotations

import numpy as np

from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.verdicts import Found
from vizcomp.djpeg.compress import Compressed
from vizcomp.djpeg.lossless import rewritten
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import DamagedError, FormatError, TruncatedError
from vizcomp.photos.formats import transcoded
from vizcomp.photos.photo import Photo

NOTHING = np.ones((1, 1), np.float32)  # importance: no block is cheaper than another


def without_loss(photo: Photo, settings: DjpegSettings, batch: BatchSettings) -> Found:
    """A JPEG with the same coefficients in fewer bytes; what cannot be written so is kept, and says
    why.

    Raises:
        DamagedError, TruncatedError: the JPEG is.
    """
    if photo.jpeg is None:
        return _kept(
            photo, f"kept as it is: a {photo.format} is no JPEG, and `lossless` changes no pixel"
        )
    try:
        file = rewritten(photo.jpeg, settings, max_pixels=batch.max_pixels)
        data = file.data
        if settings.format == "jxl":
            data = transcoded(data, *photo.pixels.shape[:2])
    except (DamagedError, TruncatedError):
        raise
    except FormatError as exc:
        return _kept(photo, f"kept as it is: {exc.message}")
    sizes = {"plain_jpeg_bytes": file.plain_bytes, "optimised_jpeg_bytes": file.optimised_bytes}
    compressed = Compressed(data, 100.0, NOTHING, file.notices, settings.format)
    return Found(compressed, photo, rivals=sizes)


def _kept(photo: Photo, why: str) -> Found:
    sizes = dict.fromkeys(("plain_jpeg_bytes", "optimised_jpeg_bytes"), photo.source_bytes)
    return Found(Compressed(b"", 100.0, NOTHING), photo, rivals=sizes, keep=why)
