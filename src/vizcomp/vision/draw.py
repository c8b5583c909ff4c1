"""What a vision system answers, drawn on the photo."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vizcomp.vision.answers import Answer, Boxes, Classes, Masks, Pixels

# Colours that differ in lightness too; a label has the colour of its place in the answer.
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
)
OPACITY = 0.5  # of masks
BEST = 5  # classes that are told


def drawn(image: Pixels, answer: Answer) -> Pixels:
    """A photo, uint8 (H, W, 3), with boxes, classes or masks drawn on it, of the same shape."""
    if isinstance(answer, Masks):
        return _masks(image, answer)
    picture = Image.fromarray(image).copy()
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    font = ImageFont.load_default(max(10, side // 45))
    if isinstance(answer, Boxes):
        kinds = list(dict.fromkeys(answer.labels))
        for at, quad in enumerate(answer.quads):
            label = answer.labels[at] if answer.labels else ""
            colour = COLOURS[kinds.index(label) % len(COLOURS)] if label else COLOURS[0]
            points = [(float(x), float(y)) for x, y in quad]
            pen.line([*points, points[0]], colour, max(2, side // 300), joint="curve")
            sure = "" if answer.scores is None else f"{100 * float(answer.scores[at]):.0f}%"
            if text := " ".join(filter(None, [label, sure])):
                _write(pen, text, (max(0, quad[:, 0].min()), max(0, quad[:, 1].min())), font, colour)
    else:
        _write(pen, _lines(answer), (0, 0), font, (255, 255, 255))
    return np.asarray(picture)


def _lines(answer: Answer) -> str:
    if not isinstance(answer, Classes):
        return answer.words()
    order = np.argsort(-answer.probabilities)[:BEST]
    names = [answer.names[i] if answer.names else f"class {i}" for i in order]
    return "\n".join(f"{name} {100 * float(answer.probabilities[i]):.0f}%" for name, i in zip(names, order, strict=True))


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    place: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    left, top, right, bottom = pen.multiline_textbbox(place, text, font=font)
    pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=(0, 0, 0))
    pen.multiline_text(place, text, fill=colour, font=font)


def _masks(image: Pixels, answer: Masks) -> Pixels:
    numbers = [int(n) for n in np.unique(answer.labels) if n]
    painted = image.astype(np.float32)
    for at, number in enumerate(numbers):
        where = answer.labels == number
        colour = np.array(COLOURS[at % len(COLOURS)], np.float32)
        painted[where] = (1 - OPACITY) * painted[where] + OPACITY * colour
    picture = Image.fromarray(painted.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10, max(picture.size) // 45))
    for at, number in enumerate(numbers):
        rows, columns = np.nonzero(answer.labels == number)
        middle = len(rows) // 2  # a pixel of the mask itself, near its middle row
        _write(pen, answer.name_of(number), (float(columns[middle]), float(rows[middle])), font, COLOURS[at % len(COLOURS)])
    return np.asarray(picture)
