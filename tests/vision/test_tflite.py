"""TFLite models as vision systems. The models themselves are not in the project: where they are
absent, tests skip."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from vizcomp.errors import MissingExtraError, ModelError, SettingsError
from vizcomp.vision.answers import Classes, Keypoints, Masks
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

MODELS = Path(__file__).parents[3] / "shared/models"
# (1, ?, ?, 3) to the means of the channels, written by TensorFlow 2.21; zlib, base 85
OPEN = (
    "c-nPS%}(1u5S}C^L|~;<wMr#&$e{;LCP0NM#3f2WMM?lc#0kk*c&RKU8|2uChd`po9{K<rc?5dnzynlOZ>{<mm~Y"
    "l&lU8))Paco=`{r-AK}7wn?y5sgYS0^UXpU_7YGlDC_=qln-@r|Y=oYxF5aA)1*v)Iku$VK0FI#vUzzblkqVrIH@"
    "&a}0Cxh7VEZ}RJre(2fz$l5&lGtmJXtV#%Lz-IheF5<Pck=Hi_)}uP0y?`phnxEc+q*knZ?oV2(C)XPo8?uLefi#"
    "DsJ$rBaX3`oxr)Z&NK+O5JKz?$2EG8XaCDmGaa`2QIoAtq_PsUUs_|8YN2VWnUoF#{*5R*la{BG6BK25?MYQ6sEW"
    "4=whs0vdWp~YO(bHmO>zOz;=@ILFM9;ba_rBNN-fwnB8a2i$aLpda@asiZtWy_1&+SO+3`BeAhdQ50&UH+FHq8oG"
    "da_`PeUJEgK4r<hG?8OTeB6WYGTVmnyf%4}WR|UIcr%GP(Pv(h&jNb&67M}fio+OFR6)ld4Axr{aVnzA=X?G?x{l"
    "N)xt4jBpP|kFd&<{KkqVL%4&a442v5}bsg_)uird5U_*;8Xz?}EeSGH4G72~st^ZC!6@h(u2HPOSouKW(#W)|5Au"
    "_YG29s#DBddC"
)
# (1, 4, 4, 3) to the channels' largest or least numbers: signatures `most` and `least`
SIGNED = (
    "c-oCrF>ljQ5I(ym7>FQ<P$IQMh7Jr>Xi5jvEeb_cN?VjhNRbdG)Rt-~aU{nr`3+1AOo#y?23Qb3q5J`61_m}(h7J"
    "rNuXp$Eg_ja4Y@Kwzd-vVlclW#q0IhqC+eIkDB9x#A1<0e#2M={X8^CvzI}YkDz%okl9KamfP=ySI&H-GOSRZu{z"
    "W^|VvB<y7R)AiAKq2g-?}k#!6`e5C{<DeiaIBOkXNPc6&^^?qaj_ieMjZw=vG2~n{W68C`&bj-H;nT|zlKuZ*?zd"
    "u+}+&S4z@O0wY#-e4QtSK(7E&0*<PFk=|Pgky(l=0(m~u$;DYe?73B!!6V-<D8s(+%NAXXUuIUL%0rcY|izW}*me"
    "`tOTTbGDxiE9{n3q?d)sM$*_k$z7c^n0>T3M}DR<M7`MVQq}m2KuZ9x3$;Wi+BQImt1d(--atd+E1QH&L#jzSY=l"
    "mh1fld(Wb<!v1|n$9zQ2%|20&A^B$PgxMw2(Iwd>ZHI+|=ydiC<~4P=Qom!>=7^2v{{rQ{;R0(RcR@IyzRD;+5s&"
    "8hpp#~ChSQ6}dZ*hBs_QEgJi>Y_@kOaca=SF2HS}F4E;_?oX%rsp5l#>%VZ0X&tlFNRs)6b%(LRjz{t+j^aGfXPS"
    "$l2v+2+W%I3j)@Ssb6f8-MO9Oz|r_w~!ZoH2!~Xk0hVjW4o_8;g;_C)xWvr25oKu=J`K#WAZNnzGd@L!Yt0;E8#p"
    "&&g7i1OOww3jqM1J9>2hMm^qYz%$kQQebV<a*3;CO%{+6gr%2qkwY_};*l4`8"
)
PHOTO = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)


def written(path: Path, text: str) -> str:
    pytest.importorskip("ai_edge_litert")
    path.write_bytes(zlib.decompress(base64.b85decode(text)))
    return str(path)


def model(name: str) -> str:
    pytest.importorskip("ai_edge_litert")
    if not (MODELS / name).is_file():
        pytest.skip("the models are not here")
    return str(MODELS / name)


def test_without_its_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    with pytest.raises(MissingExtraError) as caught:
        open_system(str(tmp_path / "m.tflite"))
    assert "vizcomp[tflite]" in caught.value.hint


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    for name, data in (("empty.tflite", b""), ("no.tflite", b"no model at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="cannot be read as a TFLite model"):
            open_system(str(tmp_path / name))
    with pytest.raises(ModelError, match="not there"):
        open_system(str(tmp_path / "gone.tflite"))


def test_quantised_answers_are_real_numbers() -> None:
    answer = open_system(model("mobilenet_v2_1.0_224_quant.tflite") + ":crop=0.875").answers(
        [PHOTO]
    )[0]
    assert isinstance(answer, Classes)
    assert answer.probabilities.shape == (1001,)
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert answer.probabilities.max() > 0.01  # rounded probabilities are none of logits
    assert answer.probabilities.min() == 0


def test_a_segmenter_and_a_pose_are_asked_about() -> None:
    spec = model("deeplabv3_mnv2_pascal_quant.tflite")
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert "kind=masks" in caught.value.hint
    answer = open_system(spec + ":kind=masks,resize=letterbox-corner,grey=128").answers([PHOTO])[0]
    assert isinstance(answer, Masks)
    assert answer.labels.shape == (60, 80)
    pose = model("movenet_single_pose_lightning_ptq.tflite")
    with pytest.raises(SettingsError) as caught:
        open_system(pose)
    assert f"{pose}:kind=keypoints,points=yx" in caught.value.hint
    system = open_system(f"{pose}:kind=keypoints,points=yx")
    answer = system.answers([PHOTO])[0]
    assert isinstance(answer, Keypoints)
    assert answer.points.shape[1:] == (17, 2)
    assert "letterbox-centre grey 0" in reading_of(system)


def test_open_sides_are_open_and_not_one_pixel(tmp_path: Path) -> None:
    """The file's own shape says 1x1x1x3 where sides are open: a picture of 1x3 in grey."""
    path = written(tmp_path / "own.tflite", OPEN)
    with pytest.raises(SettingsError, match="how large is its input") as caught:
        open_system(path)
    assert f"{path}:size=own" in caught.value.hint
    red = np.zeros((30, 50, 3), np.uint8)
    red[..., 0] = 255
    for size, said in (("own", "the photo's own size"), ("16", "16x16")):
        system = open_system(f"{path}:size={size}")
        assert said in reading_of(system)
        for picture in (red, red[:20], red):
            answer = system.answers([picture])[0]
            assert isinstance(answer, Classes)
            assert answer.probabilities.tolist() == [1, 0, 0]


def test_which_of_several_signatures_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "own.tflite", SIGNED)
    with pytest.raises(SettingsError, match="which of its signatures") as caught:
        open_system(path)
    assert f"{path}:signature=least or {path}:signature=most" in caught.value.hint
    with pytest.raises(ModelError, match="no signature x") as wrong:
        open_system(f"{path}:signature=x")
    assert wrong.value.hint == "there are least, most"
    half = np.zeros((4, 4, 3), np.uint8)
    half[:2, :, 1] = 255
    best = []
    for name in ("most", "least"):
        answer = open_system(f"{path}:signature={name}").answers([half])[0]
        assert isinstance(answer, Classes)
        best.append(np.round(answer.probabilities.astype(float), 3).tolist())
    assert best == [[0, 1, 0], [0.333, 0.333, 0.333]]
