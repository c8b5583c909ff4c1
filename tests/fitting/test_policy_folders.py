"""`djpeg --policy DIR`: each photo by the folder it lies in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy

LOW = DjpegSettings(quality=20, guide="uniform", strength=0.0, table="photo")
SMALL = DjpegSettings(quality=60, guide="uniform", strength=0.0, format="webp", max_side=40)


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """Photos of two cameras with a policy, and one without."""
    for seed, name in enumerate(("street", "yard", "roof")):
        folder = tmp_path / "cameras" / name / "day"
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 100, (48, 64, 3), np.uint8)
        (folder / "a.jpg").write_bytes(jpeg_bytes(picture(seed, 48, 64) // 2 + noise, quality=95))
    for name, settings in (("street", LOW), ("yard", SMALL)):
        (tmp_path / "made" / name).mkdir(parents=True)
        certificate = Certificate(
            risk=0.05, confidence=0.95, photos=700, changed=20, bound=0.041, date="2026-01-02"
        )
        always = "class 7" if name == "yard" else ""
        system = CertifiedSystem(
            name="own.onnx", fingerprint="0123456789ab", changed=20, one_answer=always
        )
        policy = Policy(settings=settings, certificate=certificate, systems=(system,))
        policy.write(tmp_path / "made" / name / "policy.toml")
    return tmp_path / "cameras"


def test_each_photo_has_the_policy_of_its_folder_and_one_without_fails(
    tmp_path: Path, cameras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("djpeg", cameras, "--policy", tmp_path / "made", "-o", out, "-j", 1)
    assert command(*words) == 1
    said = capsys.readouterr().err
    assert "street: At most 5% of the answers change" in said
    told = " ".join(said.split())
    assert "yard: when it was certified, own.onnx gave the same answer for all 700 photos" in told
    assert "street: when it was" not in told
    assert sorted(str(one.relative_to(out)) for one in out.rglob("a.*")) == [
        "street/day/a.jpg",
        "yard/day/a.webp",
    ]
    report = json.loads((out / "report.json").read_text())
    rows = {Path(one["input"]).parts[-3]: one for one in report["files"]}
    assert rows["roof"]["status"] == "failed"
    assert "there is no policy for its folder, roof" in rows["roof"]["error"]
    assert (rows["street"]["quality"], rows["yard"]["quality"]) == (20, 60)
    assert rows["yard"]["format"] == "webp"
    by_folder = report["settings"]["by_folder"]
    assert {name: one["quality"] for name, one in by_folder.items()} == {"street": 20, "yard": 60}
    assert "quality" not in report["settings"]
    assert (out / "report.html").exists()
    # one alone by its own policy gives the very file
    alone = tmp_path / "alone"
    policy = tmp_path / "made" / "street" / "policy.toml"
    assert command("djpeg", cameras / "street", "--policy", policy, "-o", alone, "-j", 1) == 0
    same = (alone / "day" / "a.jpg").read_bytes() == (out / "street" / "day" / "a.jpg").read_bytes()
    assert same
    # a photo that is given by itself lies in a folder without one
    assert command(*words[:1], cameras / "yard" / "day" / "a.jpg", *words[2:4], "-o", alone) == 1
    assert command(*words, "--resume") == 1
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["failed"] == 1


def test_what_is_no_folder_of_policies_or_has_no_folder(
    tmp_path: Path, cameras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    photo = cameras / "street" / "day" / "a.jpg"

    def refused(*words: object) -> str:
        assert command("djpeg", *words) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        (line,) = [line for line in text.splitlines() if line.startswith("error:")]
        assert not out.exists()
        return line

    assert "no folder in" in refused(cameras, "--policy", cameras, "-o", out)
    assert "folder of one policy" in refused(cameras, "--policy", made / "yard", "-o", out)
    assert "--policy and --quality contradict" in refused(
        cameras, "--policy", made, "-q", 5, "-o", out
    )
    assert "for folders of photos" in refused(photo, "--policy", made, "-o", tmp_path / "b.jpg")
    text = (made / "yard" / "policy.toml").read_text()
    (made / "yard" / "policy.toml").write_text(text.replace("quality = 60", "quality = 70"))
    assert "was changed by hand" in refused(cameras, "--policy", made, "-o", out)
