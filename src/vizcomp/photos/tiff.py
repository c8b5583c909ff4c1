"""Sample layouts of TIFF that Pillow does not know or reads wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

# As Pillow's own table: order of bytes, photometric interpretation, sample format, fill order,
# bits, extra samples; then
# mode and raw mode. Photometric 0 counts from white, sample format 2 is signed, 3 a float (TIFF
# 6.0, sections 3 and 19).
# `colour.grey_samples` turns what counts from white.
_LAYOUTS = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (2,), 1, (16,), ()): ("I", "I;16S"),
    (b"MM", 0, (2,), 1, (16,), ()): ("I", "I;16BS"),
    (b"II", 0, (1,), 1, (32,), ()): ("I", "I;32N"),
    (b"MM", 0, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"II", 0, (2,), 1, (32,), ()): ("I", "I;32S"),
    (b"MM", 0, (2,), 1, (32,), ()): ("I", "I;32BS"),
    **{
        (order, photometric, (2,), 1, (8,), ()): ("I", "I;8S")
        for order in (b"II", b"MM")
        for photometric in (0, 1)
    },
    **{(b"II", photometric, (3,), 1, (64,), ()): ("F", "F;64F") for photometric in (0, 1)},
    **{(b"MM", photometric, (3,), 1, (64,), ()): ("F", "F;64BF") for photometric in (0, 1)},
}
# What libtiff unpacks has the machine's order of bytes, which Pillow knows of 16 unsigned bits
# only.
_NATIVE = {
    "I;16BS": "I;16NS",
    "I;32B": "I;32N",
    "I;32BS": "I;32NS",
    "F;32BF": "F;32NF",
    "F;64BF": "F;64NF",
}
_PLANES = ("R", "G", "B", "A", "X", "C", "M", "Y", "K")


@contextlib.contextmanager
def more_layouts() -> Iterator[None]:
    """Pillow opens the layouts above too; a setting of the whole process, so only for callers that
    hold a lock."""
    from PIL import TiffImagePlugin

    known: dict[Any, Any] = TiffImagePlugin.OPEN_INFO
    before = {key: known[key] for key in _LAYOUTS if key in known}
    known.update(_LAYOUTS)
    try:
        yield
    finally:
        for key in _LAYOUTS:
            del known[key]
        known.update(before)


def mend_tiles(image: Image.Image) -> None:
    """Corrects how an opened TIFF, that is not decoded yet, is going to be unpacked.

    Compressed samples of more than 8 bits lie in the machine's order of bytes. Planes of 16 bits
    are not planes of 8.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (8,))
    wide = (bits[0] if isinstance(bits, tuple) else bits) == 16
    order = ";16B" if getattr(tags, "prefix", b"II") == b"MM" else ";16L"
    tiles = []
    for tile in getattr(image, "tile", []):
        raw = tile.args[0] if isinstance(tile.args, tuple) else tile.args
        if tile.codec_name == "libtiff":
            raw = _NATIVE.get(raw, raw)
        elif wide and raw in _PLANES:
            raw += order
        tiles.append(
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        )
    image.tile = tiles  # type: ignore[attr-defined]
