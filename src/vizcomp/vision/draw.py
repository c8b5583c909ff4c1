"""What a vision system answers, drawn on the photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vizcomp.vision.answers import Answer, Boxes, Classes, Keypoints, Masks, Pixels, Text

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
# Pairs of COCO's 17 points: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left
# before right.
LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
OPACITY = 0.5  # of masks
BEST = 5  # classes that are told


def drawn(image: Pixels, answer: Answer) -> Pixels:
    """A photo, uint8 (H, W, 3), with the answer drawn on it, of the same shape."""
    if isinstance(answer, Masks):
        return _masks(image, answer)
    if isinstance(answer, Boxes) and answer.masks is not None:
        image = _instances(image, answer.masks)
    picture = Image.fromarray(image).copy()
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    font = ImageFont.load_default(max(10, side // 45))
    if isinstance(answer, Keypoints):
        for at in range(len(answer.points)):
            _figure(pen, answer, at, max(2, side // 250))
    elif isinstance(answer, Text):
        for line, quad in zip(answer.lines, answer.quads, strict=True):
            points = [(float(x), float(y)) for x, y in quad]
            pen.line([*points, points[0]], COLOURS[0], max(2, side // 300), joint="curve")
            _write(
                pen, line, (max(0, quad[:, 0].min()), max(0, quad[:, 1].max())), font, COLOURS[2]
            )
    elif isinstance(answer, Boxes):
        kinds = list(dict.fromkeys(answer.labels))
        for at, quad in enumerate(answer.quads):
            label = answer.labels[at] if answer.labels else ""
            colour = COLOURS[kinds.index(label) % len(COLOURS)] if label else COLOURS[0]
            points = [(float(x), float(y)) for x, y in quad]
            pen.line([*points, points[0]], colour, max(2, side // 300), joint="curve")
            sure = "" if answer.scores is None else f"{100 * float(answer.scores[at]):.0f}%"
            if text := " ".join(filter(None, [label, sure])):
                _write(
                    pen, text, (max(0, quad[:, 0].min()), max(0, quad[:, 1].min())), font, colour
                )
    else:
        _write(pen, _lines(answer), (0, 0), font, (255, 255, 255))
    return np.asarray(picture)


def _figure(pen: ImageDraw.ImageDraw, answer: Keypoints, at: int, radius: int) -> None:
    """The seen points of one figure; of COCO's 17 the limbs between them too."""
    points, seen = answer.points[at], answer.scores[at] >= answer.least
    for number, (a, b) in enumerate(LIMBS if len(points) == 17 else ()):
        if seen[a] and seen[b]:
            pen.line([tuple(points[a]), tuple(points[b])], COLOURS[number % len(COLOURS)], radius)
    for (x, y), there in zip(points, seen, strict=True):
        if there:
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                COLOURS[at % len(COLOURS)],
                (0, 0, 0),
            )


def _lines(answer: Answer) -> str:
    if not isinstance(answer, Classes):
        return answer.words()
    order = np.argsort(-answer.probabilities)[:BEST]
    names = [answer.names[i] if answer.names else f"class {i}" for i in order]
    return "\n".join(
        f"{name} {100 * float(answer.probabilities[i]):.0f}%"
        for name, i in zip(names, order, strict=True)
    )


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


def _instances(image: Pixels, masks: npt.NDArray[np.bool_]) -> Pixels:
    """Each instance's mask over the photo."""
    height, width = image.shape[:2]
    painted = image.astype(np.float32)
    for at, mask in enumerate(masks):
        small = Image.fromarray(mask.astype(np.uint8))
        whole = np.asarray(small.resize((width, height), Image.Resampling.NEAREST)) > 0
        colour = np.array(COLOURS[at % len(COLOURS)], np.float32)
        painted[whole] = (1 - OPACITY) * painted[whole] + OPACITY * colour
    return painted.round().astype(np.uint8)


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
        _write(
            pen,
            answer.name_of(number),
            (float(columns[middle]), float(rows[middle])),
            font,
            COLOURS[at % len(COLOURS)],
        )
    return np.asarray(picture)
