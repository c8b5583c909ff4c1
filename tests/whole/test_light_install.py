"""What `pip install .` brings is enough for all commands but trainings; where it is not, the extra
is named.

Imports of what only extras bring fail here, as on a machine without them; and that they are asked
for at all is noted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kit import picture
from PIL import Image

import vizcomp

EXTRAS = (
    *("torch", "torchvision", "accelerate", "onnx", "tensorflow", "keras", "h5py"),
    *(
        "scipy",
        "cv2",
        "skimage",
        "matplotlib",
        "pandas",
        "pyarrow",
        "ray",
        "fsspec",
        "rapidocr",
        "ml_dtypes",
    ),
)
HEAVY = {"torch", "torchvision", "tensorflow", "keras", "accelerate", "onnx"}

# Python runs this module at its start, in worker processes too.
BLOCKING = f"""
import os, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            with open(os.environ["ASKED"], "a") as file:
                file.write(name + "\\n")
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""

COMMANDS = """
import json, sys
from vizcomp.cli import main
codes = []
for words in json.load(sys.stdin):
    sys.argv = ["vizcomp", *words]
    print("$", *words, flush=True)
    try:
        main()
    except SystemExit as left:
        codes.append(left.code or 0)
    else:
        codes.append(0)
    sys.stdout.flush()
    sys.stderr.flush()
print("codes", json.dumps(codes))
"""


def run(folder: Path, commands: list[list[str]]) -> tuple[list[int], str, set[str]]:
    """The commands one after the other in one process: exit codes, what they print, and which
    extras were asked for."""
    (folder / "start").mkdir(exist_ok=True)
    (folder / "start" / "sitecustomize.py").write_text(BLOCKING)
    asked = folder / "asked.txt"
    asked.write_text("")
    paths = [str(folder / "start"), str(Path(vizcomp.__file__).parents[1])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "ASKED": str(asked),
        "VIZCOMP_CACHE": str(folder / "cache"),
        "VIZCOMP_OFFLINE": "1",
        "COLUMNS": "200",
    }
    code = COMMANDS + f"\nprint('loaded', sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    codes = json.loads(done.stdout.rpartition("codes ")[2].partition("\n")[0])
    assert done.stdout.rstrip().endswith("loaded []"), done.stdout[-300:]
    return codes, done.stdout, {name.partition(".")[0] for name in asked.read_text().split()}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Two photos, and class folders of six small pictures."""
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(picture(seed, 64, 80)).save(tmp_path / "photos" / f"{seed}.png")
    for seed in range(6):
        path = tmp_path / "small" / ("cat", "dog")[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(path)
    return tmp_path


BASE = """
djpeg photos -o out --jobs 1
djpeg photos -o verified --guide system:watcher --verify inception --jobs 1
depth photos -o maps --preview --jobs 1
encode photos -o enc --iterations 2 --jobs 1
encode photos/0.png -o one.vzc --iterations 3 --verify watcher --jobs 1
encode small --pack -o small.vzc --model cifar --jobs 1
info enc/0.vzc
info small.vzc --json
decode enc -o dec --jobs 1
decode small.vzc -o unpacked --jobs 1
eval --data small --classifier inception --codec cifar --codec djpeg --baseline webp -o report
look photos --system watcher -o looked
fit small --system watcher --risk 60% --confidence 60% -o policy.toml --jobs 1
weights list
weights verify
weights path watcher
weights export cifar -o decoder.onnx
weights export photo -o encoder.onnx --part encoder --iterations 2
weights export watcher -o watcher.onnx
"""
EXPECTED = [
    "out/report.html",
    "maps/0.depth.png",
    "enc/1.vzc",
    "dec/0.png",
    "report/report.json",
    "looked/0.look.jpg",
    "policy.toml",
]


def test_the_base_is_enough(inputs: Path) -> None:
    """And nobody asks for what extras bring, so that nobody loads it where it is installed."""
    commands = BASE.strip().splitlines()
    codes, said, asked = run(inputs, [line.split() for line in commands])
    assert dict(zip(commands, codes, strict=True)) == dict.fromkeys(commands, 0), said
    assert not asked & HEAVY, said
    assert all((inputs / name).is_file() for name in EXPECTED)
    assert len(list((inputs / "unpacked").rglob("*.png"))) == 6


def test_what_wants_an_extra_says_which(inputs: Path) -> None:
    wanted = {
        "train --data small -o run": "train",
        "train --data small --kind classifier -o run": "train",
        "train --data photos --kind depth -o run": "train",
        "encode small -o s --model cifar --search 12 --jobs 1": "train",
        "encode small --pack -o s.vzc --model cifar --search 12 --jobs 1": "train",
        "eval --data small --classifier watcher --codec cifar:search=12 -o r --jobs 1": "train",
        "eval --data small --classifier torchvision:resnet18 -o r --jobs 1": "train",
        "look photos --system torchvision:resnet18 -o l": "train",
        "djpeg photos -o d --verify torchvision:resnet18 --jobs 1": "train",
        "depth photos --model nyu -o m --jobs 1": "nyu",
        "djpeg photos -o d --depth-model nyu --jobs 1": "nyu",
        "weights pull nyu": "nyu",
        "look photos --system text -o l": "text",
        "djpeg photos -o d --engine ray": "ray",
    }
    codes, said, _ = run(inputs, [line.split() for line in wanted])
    parts = said.split("\n$ ")
    for line, code, part in zip(wanted, codes, [p.removeprefix("$ ") for p in parts], strict=True):
        assert part.startswith(line)
        assert code == 2, part
        errors = [each for each in part.splitlines() if each.startswith("error:")]
        assert len(errors) == 1, part
        assert f"the extra {wanted[line]} " in errors[0], part
        assert f"vizcomp[{wanted[line]}]" in part
    assert not (inputs / "run").exists()
    assert not (inputs / "d").exists() or not list((inputs / "d").glob("*.jpg"))


def test_the_base_names_no_framework() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    base, extras = " ".join(project["dependencies"]), project["optional-dependencies"]
    assert not [name for name in ("torch", "tensorflow", "accelerate", "onnx>") if name in base]
    assert {"train", "nyu"} <= set(re.findall(r"\w+", extras["dev"][0]))
    inside = set(re.findall(r"\w+", " ".join(extras["all"]))) - {"vizcomp"}
    assert inside == set(extras) - {"all", "dev", "bench"}
    assert {
        name
        for name in ("torch", "torchvision", "accelerate", "onnx")
        if name + ">" in " ".join(extras["train"])
    } == {*("torch", "torchvision", "accelerate", "onnx")}
