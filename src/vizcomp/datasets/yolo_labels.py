"""Labels in YOLO's text, one file a photo: a class, and places as shares of the photo's width and
height.

Shares are those of the photo as displayed, and resizing or turning it upright does not change them:
the file stays as it is. It is read nonetheless, since one that holds pixels would be wrong on a
photo of another size.
"""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 16 << 20
# numbers after the class that are shares in every variant: boxes, outlines, poses, turned boxes
PLACES = 4
BEYOND = 0.01  # by which tools overshoot


def checked(path: Path) -> bytes:
    """The bytes of a file of labels.

    Raises:
        OSError: it cannot be read.
        ValueError: no labels of YOLO's.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes of labels")
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            places = [float(word) for word in words[1 : 1 + PLACES]]
        except ValueError:
            places = []
        if len(places) < PLACES:
            raise ValueError(f"line {number} is not a class and at least four numbers")
        if not all(-BEYOND <= place <= 1 + BEYOND for place in places):
            raise ValueError(f"line {number} has a place that is no share from 0 to 1")
    return data


def boxes(path: Path) -> list[tuple[int, tuple[float, float, float, float]]]:
    """The boxes of a file: number of the class, and left, top, right, bottom as shares; of outlines
    and turned boxes the upright box around them.

    Raises:
        OSError: it cannot be read.
        ValueError: no labels of YOLO's.
    """
    found = []
    for number, line in enumerate(checked(path).decode("utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, places = int(float(words[0])), [float(word) for word in words[1:]]
        except (ValueError, OverflowError) as exc:
            raise ValueError(f"line {number} is not a class and numbers") from exc
        if len(places) >= 6 and len(places) % 2 == 0:
            across, down = places[0::2], places[1::2]
            found.append((label, (min(across), min(down), max(across), max(down))))
            continue
        x, y, width, height = places[:PLACES]
        found.append((label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
    return found
