"""Trains the network behind `--guide text`: where a text detector is likely to look.

    # and --share 1, beside it
    python recipes/text_regions.py views  --data ../shared/data --work run --share 0
    # the teacher of the next
    python recipes/text_regions.py train  --work run
    # the bundled file
    python recipes/text_regions.py small  --data ../shared/data --work run
    # without the odd street photos, to be measured on them
    python recipes/text_regions.py cross  --work run --fold 1

Views are crops of photos, turned, zoomed, with other light, some with words painted in; what
RapidOCR's detector (PP-OCRv6, its probability of text for each pixel) says of each is stored beside
it, as the largest value in each 8x8 block. The network learns those values, widened by one block on
each side. Photos: the 250 of SVT and BSDS500's train and val. Figures are those of a network that
has seen half of SVT (`cross`), on the other half. Needs the extra `bench`; seeded.

`small` trains a network of a third of the time to give the logits of `text_regions.onnx` in the
folder of work, on views that are made as it goes: of SVT, and of the photos of BSDS500, COCO,
ImageNet and CLIC on which `benchmarks/djpeg_systems.py` lets settings be chosen, some with words
painted in. No detector is asked.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
SHARES = 2  # views are made by two processes
STREET_VIEWS = 8  # of each street photo: itself, and crops of it, the last with words painted in
VIEW, VIEW_BSDS = (480, 640), (320, 480)
CROP, BATCH = (320, 448), 8
POSITIVE_WEIGHT = 3.0  # a letter that is missed costs more than a bush that is kept
RATE = 4e-3
SMALL_CROP, SMALL_POOL, SMALL_RATE = (256, 320), 2500, 4e-3


def detector() -> Any:
    """RapidOCR's text detector, one thread."""
    import cv2
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    engine = RapidOCR(params={"Global.log_level": "critical", **threads})
    # opens the detector
    engine(np.zeros((64, 64, 3), np.uint8), use_det=True, use_cls=False, use_rec=False)
    return engine.text_det


def text_blocks(look: Any, image: Pixels) -> npt.NDArray[np.float16]:
    """The detector's probability of text, largest in each 8x8 block: (H, W, 3) RGB to float16 (H /
    8, W / 8), rounded up."""
    import cv2

    height, width = image.shape[:2]
    found = np.asarray(
        look.session(look.get_preprocess()(np.ascontiguousarray(image[:, :, ::-1])))
    )[0, 0]
    way = cv2.INTER_AREA if found.shape[0] > height else cv2.INTER_LINEAR
    found = cv2.resize(found, (width, height), interpolation=way)
    rows, cols = -(-height // 8), -(-width // 8)
    found = np.pad(found, ((0, rows * 8 - height), (0, cols * 8 - width)), mode="edge")
    return found.reshape(rows, 8, cols, 8).max((1, 3)).astype(np.float16)


def vary(
    image: Pixels,
    size: tuple[int, int],
    rng: np.random.Generator,
    zoom: tuple[float, float] = (0.55, 1.7),
) -> Pixels:
    """A crop of `size`, zoomed, turned and in another light."""
    import cv2

    height, width = size
    h, w = image.shape[:2]
    scale = np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1])))
    angle, aspect = rng.normal(0, 4), np.exp(rng.normal(0, 0.1))
    warp = cv2.getRotationMatrix2D((w / 2, h / 2), angle, scale)
    warp[0] *= aspect
    centre = warp @ np.array([w / 2, h / 2, 1])
    free = abs(w * scale * aspect - width) / 2, abs(h * scale - height) / 2
    moved = [
        width / 2 + rng.uniform(-free[0], free[0]),
        height / 2 + rng.uniform(-free[1], free[1]),
    ]
    warp[:, 2] += np.array(moved) - centre
    source = cv2.GaussianBlur(image, (0, 0), 0.5 / scale) if scale < 0.9 else image
    view = cv2.warpAffine(
        source, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    light = 255 * (view.astype(np.float32) / 255) ** np.exp(rng.normal(0, 0.25))
    light = (light - 128) * np.exp(rng.normal(0, 0.2)) + 128 + rng.normal(0, 10)
    light = light * np.exp(rng.normal(0, 0.06, 3))
    if rng.random() < 0.15:
        light = 255 - light
    if rng.random() < 0.3:
        light += rng.normal(0, rng.uniform(1, 6), light.shape)
    return np.clip(light, 0, 255).astype(np.uint8)


def with_words(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Words of random letters painted in, some on boards."""
    import cv2

    picture = Image.fromarray(image)
    height, width = image.shape[:2]
    letters = list(string.ascii_uppercase * 3 + string.ascii_lowercase + string.digits + " &")
    for _ in range(rng.integers(2, 9)):
        count = rng.integers(2, 10)
        word = "".join(rng.choice(letters, count))
        size = int(np.exp(rng.uniform(np.log(9), np.log(64))))
        font = ImageFont.load_default(size)
        layer = Image.new("L", (int(size * count * 0.9) + 8, int(size * 1.6) + 8))
        stroke = 0 if rng.random() < 0.5 else max(1, size // 14)
        ImageDraw.Draw(layer).text((4, 2), word, 255, font=font, stroke_width=stroke)
        layer = layer.rotate(rng.normal(0, 6), expand=True, resample=Image.Resampling.BICUBIC)
        x = int(rng.integers(-10, max(1, width - layer.width // 2)))
        y = int(rng.integers(-5, max(1, height - layer.height // 2)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        if rng.random() < 0.4:
            board = tuple(int(v) for v in rng.integers(0, 256, 3))
            ImageDraw.Draw(picture).rectangle(
                (x - 4, y - 4, x + layer.width + 4, y + layer.height + 4), fill=board
            )
        opacity = rng.uniform(0.4, 1)
        picture.paste(colour, (x, y), layer.point(lambda v, a=opacity: int(v * a)))
    result = np.asarray(picture)
    return cv2.GaussianBlur(result, (0, 0), rng.uniform(0.4, 1.2)) if rng.random() < 0.4 else result


def make_views(data: Path, work: Path, share: int) -> None:
    """Makes this process's share of the views, each as NAME.npz with `img` and `max`; those that
    exist are kept."""
    look = detector()
    streets = sorted((data / "svt" / "photos").glob("*.jpg"))
    scenes = sorted((data / "bsds").glob("*.jpg"))
    jobs = [
        ("street", index, path, turn)
        for turn in range(STREET_VIEWS)
        for index, path in enumerate(streets)
    ]
    jobs += [("bsds", index, path, turn) for turn in (1, 2) for index, path in enumerate(scenes)]
    (work / "views").mkdir(parents=True, exist_ok=True)
    for kind, index, path, turn in jobs[share::SHARES]:
        target = work / "views" / f"{kind}_{index:03d}_{turn}.npz"
        if target.exists():
            continue
        # each view its own, whichever process makes it
        rng = np.random.default_rng((len(kind), index, turn))
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
        if kind == "bsds":
            height, width = image.shape[:2]
            image = (
                image[: height // 8 * 8, : width // 8 * 8]
                if turn == 1
                else with_words(vary(image, VIEW_BSDS, rng, (0.8, 1.3)), rng)
            )
        elif turn:
            image = vary(image, VIEW, rng)
        if kind == "street" and turn == STREET_VIEWS - 1:
            image = with_words(image, rng)
        beside = target.with_suffix(".tmp.npz")
        np.savez(beside, img=image, max=text_blocks(look, image))
        os.replace(beside, target)


def load_views(work: Path, fold: int | None) -> list[tuple[Pixels, npt.NDArray[np.float32]]]:
    """Views to train on: all, or all but the street photos of a fold (photos in order of names,
    modulo 2)."""
    views = []
    for path in sorted((work / "views").glob("*_?.npz")):
        kind, index, _ = path.stem.split("_")
        if kind == "street" and fold is not None and int(index) % 2 == fold:
            continue
        with np.load(path) as stored:
            views.append((stored["img"], stored["max"].astype(np.float32)))
    return views


def batch(
    views: list[tuple[Pixels, npt.NDArray[np.float32]]], rng: np.random.Generator
) -> tuple[Any, Any]:
    """Random crops, some mirrored or grey: float32 (N, 3, H, W) as the network takes them, and (N,
    H / 8, W / 8)."""
    import torch
    from torch.nn import functional as F

    height, width = CROP
    images, targets = [], []
    for _ in range(BATCH):
        image, blocks = views[rng.integers(len(views))]
        rows, cols = min(height // 8, blocks.shape[0]), min(width // 8, blocks.shape[1])
        top, left = (
            rng.integers(blocks.shape[0] - rows + 1),
            rng.integers(blocks.shape[1] - cols + 1),
        )
        image = image[top * 8 : (top + rows) * 8, left * 8 : (left + cols) * 8]
        blocks = blocks[top : top + rows, left : left + cols]
        image = np.pad(
            image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge"
        )
        blocks = np.pad(blocks, ((0, height // 8 - rows), (0, width // 8 - cols)), mode="edge")
        if rng.random() < 0.5:
            image, blocks = image[:, ::-1], blocks[:, ::-1]
        light = (
            (image.astype(np.float32) / 255 - 0.5) * np.exp(rng.normal(0, 0.15))
            + 0.5
            + rng.normal(0, 0.05)
        )
        if rng.random() < 0.15:
            light = light.mean(2, keepdims=True).repeat(3, 2)
        images.append(light.transpose(2, 0, 1))
        targets.append(blocks)
    x = torch.from_numpy(np.ascontiguousarray(np.stack(images), dtype=np.float32))
    y = F.max_pool2d(torch.from_numpy(np.ascontiguousarray(np.stack(targets)))[:, None], 3, 1, 1)[
        :, 0
    ]
    return (x - 0.45) / 0.25, y


def train(views: list[tuple[Pixels, npt.NDArray[np.float32]]], steps: int, seed: int) -> Any:
    """The trained network."""
    import torch
    from torch.nn import functional as F

    from vizcomp.nets.text_regions import TextRegionsNet

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = TextRegionsNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=steps, pct_start=0.1
    )
    weight = torch.tensor(POSITIVE_WEIGHT)
    started, mean = time.monotonic(), 0.0
    for step in range(steps):
        x, y = batch(views, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits.float(), y, pos_weight=weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0:
            print(
                f"step {step} of {steps}, loss {mean:.4f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return network.eval()


def choosable(data: Path, pattern: str, limit: int | None) -> list[Pixels]:
    """Photos of the part that settings may be chosen on, in the order of the hash of their names:
    as `photos` of benchmarks/djpeg_systems.py."""
    by_hash = {hashlib.md5(path.name.encode()).digest(): path for path in data.glob(pattern)}
    paths = [by_hash[key] for key in sorted(by_hash) if key[-1] % 2 == 0][:limit]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def small_view(
    streets: list[Pixels], others: list[Pixels], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A crop to learn from: half of them of streets, half of these as they are."""
    height, width = SMALL_CROP
    if rng.random() < 0.5:
        image = streets[rng.integers(len(streets))]
        if rng.random() < 0.5:
            top = rng.integers(0, (image.shape[0] - height) // 8 + 1) * 8
            left = rng.integers(0, (image.shape[1] - width) // 8 + 1) * 8
            view = image[top : top + height, left : left + width]
        else:
            view = vary(image, SMALL_CROP, rng)
        painted = 0.1
    else:
        image = others[rng.integers(len(others))]
        zoom = (0.5, 1.3) if image.shape[1] < 1000 else (0.3, 1.0)
        view, painted = vary(image, SMALL_CROP, rng, zoom), 0.3
    if rng.random() < painted:
        view = with_words(view, rng)
    return np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)


def distil(data: Path, teacher: Path, steps: int) -> Any:
    """The small network, taught by a file of `train`."""
    import torch
    from torch.nn import functional as F

    from vizcomp.djpeg.text_regions import TextRegions
    from vizcomp.nets.text_regions import SmallTextRegionsNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    ask = TextRegions(teacher)
    streets = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((data / "svt" / "photos").glob("*.jpg"))
    ]
    kinds = {"bsds/*.jpg": 120, "coco/images/*": None, "imagenet/*": 120, "clic/*.jpg": 10}
    others = [image for name, limit in kinds.items() for image in choosable(data, name, limit)]
    network = SmallTextRegionsNet()
    optimiser = torch.optim.AdamW(network.parameters(), SMALL_RATE, weight_decay=0.01)
    pool: list[tuple[Pixels, npt.NDArray[np.float32]]] = []
    for step in range(steps):
        # most of a batch are views that were seen before: the teacher costs more than its pupil
        for _ in range(BATCH if len(pool) < SMALL_POOL // 8 else 2):
            view = small_view(streets, others, rng)
            entry = view, np.clip(ask(view), -5, 9)
            if len(pool) < SMALL_POOL:
                pool.append(entry)
            else:
                pool[rng.integers(SMALL_POOL)] = entry
        for group in optimiser.param_groups:
            group["lr"] = SMALL_RATE * min(1, (step + 10) / 40) * max(0.02, 1 - step / steps)
        picked = [pool[index] for index in rng.integers(0, len(pool), BATCH)]
        pixels = np.stack([view for view, _ in picked]).astype(np.float32).transpose(0, 3, 1, 2)
        x = (torch.from_numpy(np.ascontiguousarray(pixels)) / 255 - 0.45) / 0.25
        x = x * float(np.exp(rng.normal(0, 0.05))) + float(rng.normal(0, 0.05))
        y = torch.from_numpy(np.stack([logits for _, logits in picked]))
        logits = network(x.contiguous(memory_format=torch.channels_last))
        # what is likely lettering counts for more
        weight = 1 + 3 * torch.sigmoid(y + 1)
        loss = (weight * F.smooth_l1_loss(logits, y, reduction="none")).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.4f}", flush=True)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("views", "train", "cross", "small"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the views and of the results"
    )
    parser.add_argument(
        "--share", type=int, default=0, help=f"which share of the views to make, of {SHARES}"
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--fold", type=int, default=0)
    args = parser.parse_args()
    if args.stage == "views":
        make_views(args.data, args.work, args.share)
        return
    from vizcomp.training.export import export_text_regions

    words = {
        "licence": "MIT",
        "data": "SVT and BSDS500 train and val; taught by RapidOCR's PP-OCRv6 detector",
    }
    if args.stage == "small":
        words["data"] += "; small: BSDS500, COCO, ImageNet and CLIC too, taught by the former"
        network = distil(args.data, args.work / "text_regions.onnx", args.steps)
        export_text_regions(network, args.work / "small.onnx", metadata=words)
        print(f"{args.steps} steps: {args.work / 'small.onnx'}")
        return
    fold = args.fold if args.stage == "cross" else None
    views = load_views(args.work, fold)
    network = train(views, args.steps, seed=0 if fold is None else fold)
    name = "text_regions.onnx" if fold is None else f"fold{fold}.onnx"
    export_text_regions(network, args.work / name, metadata=words)
    print(f"{len(views)} views, {args.steps} steps: {args.work / name}")


if __name__ == "__main__":
    main()
