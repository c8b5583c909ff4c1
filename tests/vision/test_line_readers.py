"""Model files that read one line of text: characters by columns, steps, blanks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont
from test_reading import constant

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision.answers import Text
from vizcomp.vision.line_readers import characters_of, read_line, signs_by
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

LINE = np.full((32, 100, 3), 200, np.uint8)
LETTERS = "0123456789abcdefghij"


def steps(text: str, *, columns: int = 21, blank: int = 0, certain: float = 8) -> npt.NDArray:
    """Logits (T, C) of a text of `LETTERS`, each letter twice, a blank after each; "_" is column
    20 of the last blank."""
    rows = np.zeros((3 * len(text) + 2, columns), np.float32)
    rows[:, blank] = certain
    for at, letter in enumerate(text):
        column = LETTERS.index(letter) + (blank == 0)
        rows[3 * at + 1 : 3 * at + 3] = 0
        rows[3 * at + 1 : 3 * at + 3, column] = certain
    return rows


def model(path: Path, rows: npt.NDArray, **more: object) -> str:
    """A reader that answers these numbers to any line, 1x32x100."""
    return constant(path, shape=(1, 1, 32, 100), y=rows, **more)  # type: ignore[arg-type]


def read(spec: str, image: npt.NDArray[np.uint8] = LINE) -> Text:
    answer = open_system(spec).answers([image])[0]
    assert isinstance(answer, Text)
    return answer


TYPED = "kind=text,resize=stretch"


@pytest.mark.parametrize("turn", [(0, 1, 2), (1, 0, 2), (0, 2, 1)])
@pytest.mark.parametrize("blank", ["first", "last"])
def test_a_line_is_read_in_any_order_of_axes(
    tmp_path: Path, turn: tuple[int, ...], blank: str
) -> None:
    rows = steps("aab03", blank=0 if blank == "first" else 20)
    path = model(tmp_path / "own.onnx", np.ascontiguousarray(rows[None].transpose(turn)))
    answer = read(f"{path}:{TYPED},characters={LETTERS},blank={blank}")
    assert answer.lines == ("aab03",)
    assert answer.quads.tolist() == [[[0, 0], [100, 0], [100, 32], [0, 32]]]
    assert answer.scores is not None
    assert 0.9 < answer.scores[0] <= 1


def test_characters_come_from_metadata_a_file_or_json(tmp_path: Path) -> None:
    rows = steps("1f")[None]
    for text in ("\n".join(LETTERS), LETTERS, repr(list(LETTERS))):
        path = model(tmp_path / "said.onnx", rows, metadata={"character": text})
        assert read(f"{path}:blank=first,resize=stretch").lines == ("1f",)
    path = model(tmp_path / "own.onnx", rows)
    keys = tmp_path / "keys.txt"
    keys.write_bytes("\r\n".join(LETTERS).encode() + b"\r\n")
    assert read(f"{path}:{TYPED},blank=first,characters={keys}").lines == ("1f",)
    own = {"kind": "text", "characters": list(LETTERS), "blank": "first", "resize": "stretch"}
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert read(path).lines == ("1f",)
    assert "20 characters, blank first" in reading_of(open_system(path))
    with pytest.raises(SettingsError, match="characters cannot be read") as caught:
        open_system(f"{path}:{TYPED},characters=none.txt")
    assert caught.value.hint == "give a text file with a character a line"


def test_paddles_space_and_a_named_blank_are_known() -> None:
    grey = np.zeros((4, 6))
    assert signs_by("abcd", 6, "", grey) == ("", "a", "b", "c", "d", " ")
    assert signs_by([*"ab", "[blank]", *"cde"], 6, "", grey) == ("a", "b", "", "c", "d", "e")
    with pytest.raises(ValueError, match=r"6 columns, .* and 4 characters"):
        signs_by("abcd", 6, "last", grey)
    with pytest.raises(ValueError, match="sign of the end"):
        signs_by([*"abcd", "</s>"], 6, "", grey)


def test_where_the_blank_is_unknown_it_is_asked(tmp_path: Path) -> None:
    path = model(tmp_path / "own.onnx", steps("ab")[None])
    with pytest.raises(SettingsError, match="stands for no character") as caught:
        open_system(f"{path}:{TYPED},characters={LETTERS}")
    assert "blank=first" in caught.value.hint
    assert "blank=last" in caught.value.hint
    nothing = model(tmp_path / "none.onnx", steps("")[None].repeat(5, 1))
    assert read(f"{nothing}:{TYPED},characters={LETTERS}").lines == ()  # the grey picture says it


@pytest.mark.parametrize("soft", [True, False])
def test_a_reader_is_asked_for_its_characters(tmp_path: Path, *, soft: bool) -> None:
    rows = steps("ab", certain=20)[None]
    rows = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True) if soft else rows
    path = model(tmp_path / "own.onnx", rows)
    for spec in (path, f"{path}:kind=text"):
        with pytest.raises(SettingsError) as caught:
            open_system(spec)
        assert "kind=text,characters=KEYS.txt" in caught.value.hint


def test_what_becomes_of_a_line_of_another_shape_is_asked(tmp_path: Path) -> None:
    path = model(tmp_path / "own.onnx", steps("ab")[None])
    with pytest.raises(SettingsError, match="stretched to it, or filled up") as caught:
        open_system(f"{path}:kind=text,characters={LETTERS},blank=first")
    assert "resize=letterbox-corner" in caught.value.hint


@pytest.mark.parametrize(
    ("characters", "said"), [("abc", "21 columns, .* and 3 characters"), (LETTERS + "xyz", "21")]
)
def test_characters_that_do_not_fit_are_refused(tmp_path: Path, characters: str, said: str) -> None:
    path = model(tmp_path / "own.onnx", steps("ab")[None])
    with pytest.raises(ModelError, match=said) as caught:
        open_system(f"{path}:{TYPED},characters={characters},blank=first")
    assert "characters=KEYS.txt" in caught.value.hint


def test_an_input_that_is_open_on_one_side_is_asked_about(tmp_path: Path) -> None:
    """A detector of any width; and what is as high as a line but reads none."""
    row = np.ones((1, 1000), np.float32)
    wide = constant(tmp_path / "wide.onnx", shape=(1, 3, 640, None), y=row)
    with pytest.raises(SettingsError, match="open on the other") as caught:
        open_system(wide)
    assert f"{wide}:size=640x640" in caught.value.hint
    low = constant(tmp_path / "low.onnx", shape=(1, 3, 48, None), y=row)
    with pytest.raises(ModelError, match="readers of text have") as wrong:
        open_system(low)
    assert "size=48x48" in wrong.value.hint
    assert open_system(f"{low}:size=48x48").kind == "classes"


def test_a_row_of_classes_is_no_line(tmp_path: Path) -> None:
    path = model(tmp_path / "own.onnx", np.zeros((1, 21), np.float32))
    with pytest.raises(ModelError, match="no scores of characters"):
        open_system(f"{path}:{TYPED},characters={LETTERS}")


def test_doubtful_lines_are_none(tmp_path: Path) -> None:
    path = model(tmp_path / "own.onnx", steps("ab", certain=2)[None])
    spec = f"{path}:{TYPED},characters={LETTERS},blank=first"
    assert read(spec).lines == ()
    assert read(f"{spec},least=0.1").lines == ("ab",)


def test_probabilities_and_logarithms_of_them_are_as_sure() -> None:
    rows = steps("ab").astype(np.float64)
    shares = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    signs = ("", *LETTERS)
    found = [read_line(each, signs) for each in (rows, shares, np.log(shares))]
    assert {text for text, _ in found} == {"ab"}
    assert np.ptp([sure for _, sure in found]) < 1e-6


def test_metadata_that_say_nothing() -> None:
    for metadata in ({}, {"character": ""}, {"names": "{0: 'a'}"}):
        assert characters_of(metadata) == ()
    assert characters_of({"character": "a\n \nb\n"}) == ("a", " ", "b")
    assert characters_of({"vocab": "[1, 2"}) == tuple("[1, 2")


def test_the_reader_that_comes_with_rapidocr_reads(tmp_path: Path) -> None:
    rapidocr = pytest.importorskip("rapidocr")
    found = sorted(Path(rapidocr.__file__).parent.glob("models/*rec*.onnx"))
    if not found:
        pytest.skip("no reader beside it")
    picture = Image.new("RGB", (330, 60), (230, 225, 210))
    font = ImageFont.load_default(size=40)
    ImageDraw.Draw(picture).text((12, 4), "Hello World 42", (20, 30, 60), font)
    system = open_system(str(found[0]))
    assert "48 high, as wide as the line" in reading_of(system)
    answer = system.answers([np.asarray(picture)])[0]
    assert isinstance(answer, Text)
    assert answer.lines == ("Hello World 42",)
    assert (system.importance(np.asarray(picture)) == 1).all()
