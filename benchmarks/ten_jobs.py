"""Ten jobs that teams have, one command each, on data made from the sample photos.

    python benchmarks/ten_jobs.py [--folder DIR] [--only NAME ...]

Prints each command as it can be typed, whether it did what it should, and the bytes before and
after. Leaves with 1 where a job failed. A job whose option or package is missing here is said to be
left out, and why. Needs the packages of `.[dev]`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import vizcomp

SAMPLES = Path(vizcomp.__file__).parent / "bundled" / "samples"
QUICK = ("--guide", "uniform", "--report", "none")


@dataclasses.dataclass(frozen=True)
class Job:
    """A job: its data, its command, and the check of what came out: bytes before and after."""

    name: str
    make: Callable[[Path], None]
    command: tuple[str, ...]
    check: Callable[[Path], tuple[int, int]]
    needs: str = ""  # an option of djpeg
    package: str = ""
    given: str = ""  # a file for standard input
    into: str = ""  # a file that takes standard output


def photos(folder: Path, count: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, path in enumerate(
        [p for p in sorted(SAMPLES.iterdir()) if p.suffix in (".jpg", ".png")][:count]
    ):
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((320, 320))
            made.append(folder / f"{number:04}.jpg")
            small.save(made[-1], quality=95)
    return made


def sizes(before: Path, after: Path) -> tuple[int, int]:
    """Bytes of the JPEG files in two folders, which must have the same names and be readable."""
    one, two = ({p.name: p for p in folder.glob("*.jpg")} for folder in (before, after))
    assert one.keys() == two.keys(), sorted(two)
    for path in two.values():
        with Image.open(path) as image:
            image.load()
    return sum(p.stat().st_size for p in one.values()), sum(p.stat().st_size for p in two.values())


def make_tars(folder: Path) -> None:
    (folder / "shards").mkdir()
    for number in range(2):
        with tarfile.open(folder / "shards" / f"{number:02}.tar", "w") as tar:
            for path in photos(folder / "photos"):
                for name, data in (
                    (path.name, path.read_bytes()),
                    (f"{path.stem}.json", b'{"label": 1}'),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def check_tars(folder: Path) -> tuple[int, int]:
    before = after = 0
    for path in sorted((folder / "shards").iterdir()):
        with tarfile.open(path) as one, tarfile.open(folder / "out" / path.name) as two:
            for a, b in zip(one, two, strict=True):
                old, new = one.extractfile(a), two.extractfile(b)
                assert old is not None
                assert new is not None
                assert a.name == b.name
                assert (old.read() == new.read()) == a.name.endswith(".json")
        before, after = (
            before + path.stat().st_size,
            after + (folder / "out" / path.name).stat().st_size,
        )
    return before, after


def make_table(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in photos(folder / "photos")]
    (folder / "table").mkdir()
    pq.write_table(
        pa.table({"image": cells, "label": list(range(len(cells)))}),
        folder / "table" / "train.parquet",
        row_group_size=2,
    )


def check_table(folder: Path) -> tuple[int, int]:
    import pyarrow.parquet as pq

    one, two = (pq.read_table(folder / place / "train.parquet") for place in ("table", "out"))
    assert one.column("label").equals(two.column("label"))
    assert one.schema.equals(two.schema)
    return tuple(
        sum(len(cell["bytes"]) for cell in each.column("image").to_pylist()) for each in (one, two)
    )  # type: ignore[return-value]


def make_coco(folder: Path) -> None:
    images = []
    for number, path in enumerate(photos(folder / "images")):
        with Image.open(path) as image:
            images.append(
                {"id": number, "file_name": path.name, "width": image.width, "height": image.height}
            )
    boxes = [
        {
            "id": n,
            "image_id": n,
            "category_id": 1,
            "bbox": [10, 20, 100, 50],
            "area": 5000,
            "iscrowd": 0,
        }
        for n in range(len(images))
    ]
    about = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(about))


def check_coco(folder: Path) -> tuple[int, int]:
    found = sizes(folder / "images", folder / "out")
    for path in (folder / "out").glob("*.jpg"):
        with Image.open(path) as image:
            assert max(image.size) == 160
    (labels,) = [
        p for p in (folder / "out").rglob("*.json") if "annotations" in json.loads(p.read_text())
    ]
    for box in json.loads(labels.read_text())["annotations"]:
        assert abs(box["bbox"][0] - 5) < 1
    return found


def make_embedding(folder: Path) -> None:
    """A network that answers with the mean colours of 64 places."""
    import onnx
    from onnx import TensorProto, helper

    photos(folder / "photos", 2)
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    ends = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 3, 64, 64]), ("y", [1, 192]))
    )
    graph = helper.make_graph(nodes, "places", [next(ends)], [next(ends)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "places.onnx"))


def make_masks(folder: Path) -> None:
    (folder / "masks").mkdir()
    for path in photos(folder / "photos"):
        with Image.open(path) as image:
            mask = np.zeros((image.height, image.width), np.uint8)
        mask[: mask.shape[0] // 2] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{path.stem}.png")


def check_stream(folder: Path) -> tuple[int, int]:
    with Image.open(folder / "out.jpg") as image:
        image.load()
    return (folder / "photos" / "0000.jpg").stat().st_size, (folder / "out.jpg").stat().st_size


def check_lossless(folder: Path) -> tuple[int, int]:
    for path in sorted((folder / "photos").iterdir()):
        with Image.open(path) as one, Image.open(folder / "out" / path.name) as two:
            assert np.array_equal(np.asarray(one), np.asarray(two))
    return sizes(folder / "photos", folder / "out")


def plain(folder: Path) -> tuple[int, int]:
    return sizes(folder / "photos", folder / "out")


def check_bucket(folder: Path) -> tuple[int, int]:
    import fsspec

    store = fsspec.filesystem("s3")
    return tuple(sum(store.sizes(store.glob(f"photos/{part}/*.jpg"))) for part in ("in", "out"))  # type: ignore[return-value]


JOBS = (
    Job("webdataset", make_tars, ("shards/{00..01}.tar", "-o", "out", *QUICK), check_tars),
    Job(
        "parquet",
        make_table,
        ("table/*.parquet", "-o", "out", *QUICK),
        check_table,
        package="pyarrow",
    ),
    Job(
        "coco",
        make_coco,
        ("images", "-o", "out", "--max-side", "160", "--labels", "instances.json", *QUICK),
        check_coco,
        "--labels",
    ),
    Job(
        "hot folder",
        lambda folder: None,
        ("photos", "-o", "out", "--watch", *QUICK),
        plain,
        "--watch",
    ),
    Job(
        "streams",
        lambda f: photos(f / "photos") and None,
        ("-", "-o", "-", *QUICK),
        check_stream,
        given="photos/0000.jpg",
        into="out.jpg",
    ),
    Job(
        "bucket to bucket",
        lambda f: photos(f / "photos") and None,
        ("s3://photos/in", "-o", "s3://photos/out", *QUICK),
        check_bucket,
        package="moto",
    ),
    Job(
        "lossless",
        lambda f: photos(f / "photos") and None,
        ("photos", "-o", "out", "--lossless", "--report", "none"),
        check_lossless,
        "--lossless",
    ),
    Job(
        "reading",
        lambda f: photos(f / "photos", 2) and None,
        ("photos", "-o", "out", "--verify", "text:read", "--report", "none"),
        plain,
        package="rapidocr",
    ),
    Job(
        "embeddings",
        make_embedding,
        ("photos", "-o", "out", "--verify", "places.onnx:kind=embedding", *QUICK),
        plain,
    ),
    Job(
        "masks",
        make_masks,
        ("photos", "-o", "out", "--guide", "mask", "--masks", "masks", "--report", "none"),
        plain,
    ),
)


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[None]:
    """An S3 server on this machine, with the photos in it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    about = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(about, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        for path in sorted((folder / "photos").iterdir()):
            client.upload_file(str(path), "photos", f"in/{path.name}")
        yield
    finally:
        server.stop()


def watched(words: list[str], folder: Path) -> int:
    """Photos arrive while the command runs; it is ended when their results are there."""
    (folder / "photos").mkdir()
    process = subprocess.Popen(words, cwd=folder)
    time.sleep(3)
    made = photos(folder / "photos", 2)
    for _ in range(600):
        if process.poll() is not None or all(
            (folder / "out" / path.name).exists() for path in made
        ):
            break
        time.sleep(0.5)
    try:
        process.send_signal(signal.SIGTERM)
        return process.wait(120)
    finally:
        process.kill()


def run(job: Job, folder: Path) -> tuple[int, int]:
    words = [sys.executable, "-m", "vizcomp", "djpeg", *job.command, "--quiet"]
    job.make(folder)
    with bucket(folder) if job.package == "moto" else contextlib.nullcontext():
        if "--watch" in job.command:
            code = watched(words, folder)
        else:
            given = (folder / job.given).read_bytes() if job.given else b""
            done = subprocess.run(
                words, cwd=folder, input=given, stdout=subprocess.PIPE if job.into else None
            )
            code = done.returncode
            if job.into:
                (folder / job.into).write_bytes(done.stdout)
        assert code == 0, f"exit code {code}"
        return job.check(folder)


def left_out(job: Job, options: str) -> str:
    import importlib.util

    if job.needs and job.needs not in options:
        return f"this version has no {job.needs}"
    if job.package and importlib.util.find_spec(job.package) is None:
        return f"{job.package} is not installed"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, help="where the data are made and left; default: a temporary one"
    )
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], metavar="NAME")
    asked = parser.parse_args()
    shown = subprocess.run(
        [sys.executable, "-m", "vizcomp", "djpeg", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for job in JOBS:
            if asked.only and job.name not in asked.only:
                continue
            if why := left_out(job, shown.stdout):
                print(f"{job.name:<17} left out: {why}")
                continue
            folder = (asked.folder or Path(temporary)) / job.name.replace(" ", "-")
            folder.mkdir(parents=True)
            typed = shlex.join(["vizcomp", "djpeg", *job.command])
            try:
                before, after = run(job, folder)
                print(f"{job.name:<17} {before:>9,} -> {after:>9,} bytes   {typed}", flush=True)
            except Exception as exc:
                failed += 1
                print(f"{job.name:<17} FAILED: {exc!r}   {typed}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
