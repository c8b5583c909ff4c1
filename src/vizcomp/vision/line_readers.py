"""Networks that read one line of text and answer how likely each character is at each step, read as
connectionist temporal classification has it (Graves et al. 2006): the best sign of each step,
repeats once, blanks left out."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vision.answers import Pixels, Text
from vizcomp.vision.boxes import corners_to_quads
from vizcomp.vision.options import characters_in
from vizcomp.vision.system import softmax

METADATA = (
    "character",
    "characters",
    "charset",
    "alphabet",
    "vocab",
)  # of metadata, as exporters write
BLANKS = ("blank", "[blank]", "<blank>", "<blk>", "<ctc>", "[ctc]", "ctc_blank")
ENDS = ("<eos>", "</s>", "[eos]", "[s]", "<end>", "[sep]")  # of readers that are no CTC
LEAST_COLUMNS = 10
LINE_SHAPE = 2  # times as wide as high is an input for a line, and at most so high:
MOST_HIGH = 64


def characters_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The characters that a file says of itself: a line each, a list, or one text; () for none."""
    text = next((metadata[key] for key in METADATA if metadata.get(key)), "")
    if text.strip("\n") and "\n" in text.strip("\n"):
        return characters_in(text)
    if text.startswith("["):
        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return tuple(listed)
    return tuple(text.strip("\n"))


def line_like(size: Sequence[int]) -> bool:
    """Whether an input, height and width, is one for a line of text."""
    return size[0] <= MOST_HIGH and size[1] >= LINE_SHAPE * size[0]


def is_steps(main: npt.NDArray[Any]) -> bool:
    """Whether an output may have a score for each character at each step, (1, T, C) or
    (T, 1, C)."""
    good = main.ndim == 3 and main.dtype.kind == "f" and 1 in main.shape[:2]
    return bool(good and max(main.shape[:2]) > 1 and main.shape[2] >= LEAST_COLUMNS)


def steps_of(main: npt.NDArray[Any], columns: int) -> npt.NDArray[np.float64] | None:
    """The scores of one line, (T, C), where C is so many; None where an output is no such."""
    if main.ndim == 2:
        main = main[None]
    if main.ndim != 3:
        return None
    if main.shape[2] == columns:
        rows = main[0] if len(main) == 1 or main.shape[1] != 1 else main[:, 0]
    elif main.shape[1] == columns and len(main) == 1:
        rows = main[0].T
    else:
        return None
    return np.asarray(rows, np.float64) if len(rows) > 1 else None


def signs_by(
    characters: Sequence[str], columns: int, blank: str, grey: npt.NDArray[Any]
) -> tuple[str, ...] | None:
    """What each column stands for, "" for the blank; None where it cannot be told whether that is
    the first or the last.

    Args:
        characters: as they were said.
        columns: of the model's answer.
        blank: "first", "last", or "" where nobody says so.
        grey: the answer on a picture without text, (T, C): all of it is blank.

    Raises:
        ValueError: so many characters do not fit; it says why.
    """
    if any(sign.lower() in ENDS for sign in characters):
        raise ValueError(
            "its characters have a sign of the end: it is no reader with a blank (CTC), and others"
            " are not read here"
        )
    named = [at for at, sign in enumerate(characters) if sign.lower() in BLANKS]
    if len(characters) == columns and len(named) == 1:
        return tuple("" if at in named else sign for at, sign in enumerate(characters))
    if len(characters) == columns - 2 and blank != "last" and " " not in characters:
        return ("", *characters, " ")  # as PaddleOCR has it
    if len(characters) != columns - 1:
        raise ValueError(
            f"it has {columns} columns, for as many characters and a blank, and"
            f" {len(characters)} characters are said"
        )
    best = set(grey.argmax(-1).ravel().tolist())
    if not blank and best in ({0}, {columns - 1}):
        blank = "first" if best == {0} else "last"
    if not blank:
        return None
    return ("", *characters) if blank == "first" else (*characters, "")


def read_line(rows: npt.NDArray[np.float64], signs: Sequence[str]) -> tuple[str, float]:
    """The line that scores (T, C) stand for, and how sure it is: the mean of its characters."""
    sure = rows.min() >= 0 and float(np.abs(rows.sum(-1) - 1).max()) < 1e-2
    shares = rows if sure else np.stack([softmax(row) for row in rows])
    best = rows.argmax(-1)
    new = np.append(True, best[1:] != best[:-1])
    kept = [at for at in np.flatnonzero(new).tolist() if signs[best[at]]]
    text = "".join(signs[best[at]] for at in kept)
    return text, float(np.mean([shares[at].max() for at in kept])) if kept else 0.0


def answer_of(
    rows: npt.NDArray[np.float64], signs: Sequence[str], least: float, image: Pixels
) -> Text:
    """The answer on a photo of one line; none below a certainty of `least`."""
    text, sure = read_line(rows, signs)
    text = " ".join(text.split())
    size = (image.shape[1], image.shape[0])
    if not text or sure < least:
        return Text((), np.zeros((0, 4, 2)), size, np.zeros(0, np.float32))
    whole = corners_to_quads(np.array([[0.0, 0.0, *size]]))
    return Text((text,), whole, size, np.array([sure], np.float32))
