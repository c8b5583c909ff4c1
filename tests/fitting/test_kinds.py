"""Settings by kind of photo: with lettering, and without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture
from test_vision import classifier

import vizcomp
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg import kinds as djpeg_kinds
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.kinds import of_kind
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.files.find import InputFile
from vizcomp.fitting import candidates, exploring, judge, kinds, sample
from vizcomp.fitting.candidates import LAST_RESORT, named, refined, rungs_like
from vizcomp.fitting.measure import Bench, Work
from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy
from vizcomp.fitting.scores import Aim, Scores
from vizcomp.fitting.search import cost_of, order_of
from vizcomp.photos.photo import Photo, load

KIND = DjpegSettings(guide="uniform", strength=0.0, table="photo")
BOTH = dataclasses.replace(
    KIND, quality=60, without_lettering=dataclasses.replace(KIND, quality=20)
)


def bright(photo: Photo) -> bool:
    """What stands for lettering here."""
    return bool(photo.pixels.mean() > 128)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bright and dark photos in turns."""
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(djpeg_kinds, "has_lettering", bright)
    monkeypatch.setattr(judge, "has_lettering", bright)
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(24):
        noise = np.random.default_rng(seed).integers(0, 60, (48, 64, 3))
        pixels = picture(seed, 48, 64) // 4 + noise + (130 if seed % 2 else 0)
        (folder / f"{seed:02}.jpg").write_bytes(jpeg_bytes(pixels.astype(np.uint8), quality=92))
    return folder


def test_a_photo_has_the_settings_of_its_kind(photos: Path) -> None:
    for name, quality in (("00.jpg", 20), ("01.jpg", 60)):
        photo = load(photos / name)
        alone = compress(photo, dataclasses.replace(KIND, quality=quality))
        found = compress(photo, BOTH)
        assert (found.data, found.quality) == (alone.data, quality)
    assert of_kind(KIND, lettering=True) == of_kind(KIND, lettering=False) == KIND
    assert DjpegSettings.from_dict(json.loads(json.dumps(BOTH.to_dict()))) == BOTH


def test_what_settings_by_kind_may_not_be() -> None:
    for other, more in (
        (BOTH, {}),
        (dataclasses.replace(KIND, format="webp"), {}),
        (KIND, {"target_size": 1000}),
    ):
        with pytest.raises(SettingsError, match="by kind"):
            dataclasses.replace(KIND, without_lettering=other, **more)


def test_photos_that_lose_nothing_pay_for_those_that_do() -> None:
    """Without lettering nothing is lost at any quality: they get the lowest, the others as much as
    passes, and no file is larger than with one setting for all."""
    rng = np.random.default_rng(0)
    lettering = np.arange(400) % 2 == 0
    hard = rng.random(400)
    ladder = [*rungs_like(KIND), LAST_RESORT]
    scores = {}
    for place, one in enumerate(ladder):
        lost = (lettering & (hard < min(0.9, 0.5 * 0.5**place))).astype(float)
        scores[one] = Scores(np.full(400, 1000 * 1.4**place), lost[None])
    aim = Aim(0.05, 0.95, 1600, (True,))
    pairs, both = kinds.paired(ladder, scores, lettering, aim)
    assert pairs[-1] == LAST_RESORT
    sizes = [float(both[one].sizes.mean()) for one in pairs]
    assert sizes == sorted(sizes)
    assert cost_of(pairs, both, aim) < 0.75 * cost_of(ladder, scores, aim)
    order = order_of(pairs, both, aim)
    smallest = order.rungs[-1]
    assert isinstance(smallest, DjpegSettings)
    assert smallest.without_lettering is not None
    assert smallest.without_lettering.quality == min(candidates.QUALITIES) < smallest.quality
    steps = refined(order.rungs, order.near, order.sizes)
    assert len(set(map(named, steps))) == len(steps)
    assert steps[-1] == smallest  # nothing below what was looked at
    assert not kinds.worth_a_look(np.ones(400, bool))
    assert kinds.worth_a_look(lettering)


def test_a_kind_that_is_known_is_not_asked_for_the_other(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [InputFile(path, Path(path.name)) for path in sorted(photos.iterdir())[:6]]
    units = sample.read_sample(files, unit="file", max_pixels=10**6).units
    bench = Bench(Work(systems=(str(classifier(tmp_path / "m.onnx")),), jobs=1, kinds=True))
    first = bench.scores([BOTH], units)[BOTH]
    assert bench.asked == 6
    assert sorted(map(bench.lettering, files)) == [False] * 3 + [True] * 3
    lower = dataclasses.replace(BOTH.without_lettering or KIND, quality=10)
    finer = bench.scores([dataclasses.replace(BOTH, without_lettering=lower)], units)
    assert bench.asked == 9  # the dark ones alone
    (found,) = finer.values()
    assert (found.sizes <= first.sizes).all()
    assert (found.sizes < first.sizes).sum() == 3


def test_a_fit_certifies_settings_by_kind_and_djpeg_applies_them(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "QUALITIES", (14, 45, 90))
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0),))
    monkeypatch.setattr(candidates, "BESIDE", ())
    monkeypatch.setattr(kinds, "FEWEST", 1)
    monkeypatch.setattr(exploring, "PAYS", 10.0)  # whether it pays or not
    fitted = vizcomp.fit(
        [photos],
        str(classifier(tmp_path / "model.onnx")),
        risk=0.2,
        confidence=0.9,
        format="webp",
        rivals=False,
        jobs=1,
    )
    settings = fitted.policy.settings
    assert settings.without_lettering is not None
    assert settings.format == settings.without_lettering.format == "webp"
    fitted.policy.write(tmp_path / "policy.toml")
    assert Policy.read(tmp_path / "policy.toml") == fitted.policy
    text = (tmp_path / "policy.toml").read_text()
    assert "[policy_without_lettering]" in text
    for path in sorted(photos.iterdir())[:4]:
        photo = load(path)
        own = of_kind(settings, lettering=bright(photo))
        assert vizcomp.compress(path, settings).data == compress(photo, own).data


def test_djpeg_takes_a_policy_by_kind(tmp_path: Path) -> None:
    """With the bundled network: nothing here has lettering."""
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(1, 64, 96), quality=95))
    certificate = Certificate(
        risk=0.05, confidence=0.95, photos=700, changed=20, bound=0.041, date="2026-01-02"
    )
    system = CertifiedSystem(name="own.onnx", fingerprint="0123456789ab", changed=20)
    Policy(settings=BOTH, certificate=certificate, systems=(system,)).write(tmp_path / "p.toml")
    words = ("djpeg", tmp_path / "a.jpg", "--policy", tmp_path / "p.toml", "-j", 1)
    assert command(*words, "-o", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["files"][0]["quality"] == 20
    assert report["settings"]["without_lettering"]["quality"] == 20


def test_a_guide_without_a_say_makes_no_second_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the guides say nothing, the file is that of no guide, and coded once."""
    path = sorted(photos.iterdir())[0]
    file = InputFile(path, Path(path.name))
    made: list[str] = []
    plain = judge.Picture.at

    def counted(self, quality: float, share: float = 1.0) -> bytes:  # type: ignore[no-untyped-def]
        made.append(self.format)
        return plain(self, quality, share)

    monkeypatch.setattr(judge.Picture, "at", counted)
    for name in ("jpeg", "webp", "avif"):
        coder = judge.Coder(load(path), file, BatchSettings())
        one = DjpegSettings(quality=40, guide="uniform", strength=0.0, format=name)
        other = dataclasses.replace(one, guide="depth+text", strength=0.25)
        assert coder.data(one) == coder.data(other)
        assert coder.data(dataclasses.replace(one, guide="detail", strength=1.0)) != coder.data(one)
    assert made == ["webp", "webp", "avif", "avif"]
