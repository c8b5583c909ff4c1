"""Training of the depth network on made data: what is written, that it learns, that it resumes to
the same bits."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vizcomp.depth.compact import CompactDepth, CompactDepthConfig
from vizcomp.errors import InputError, OutputError, SettingsError, TrainingError
from vizcomp.metrics import spearman
from vizcomp.nets.efficientnet_lite import EfficientNetLite0
from vizcomp.training.depth import SCORE, DepthTask
from vizcomp.training.depth_data import (
    SKY,
    DepthTrainSettings,
    fold_parts,
    ranked,
    read_depth_data,
    split_photos,
)
from vizcomp.training.depth_scores import depth_loss, mean_map
from vizcomp.training.loop import Progress, train
from vizcomp.training.processes import Processes
from vizcomp.training.settings import build, read_recipe, read_saved

TINY = CompactDepthConfig(channels=(8, 8, 12, 16), pyramid=(12, 8), members=2, long_side=64)
WRITTEN = {
    "settings.json",
    "checkpoint.pt",
    "metrics.jsonl",
    "curves.svg",
    "model.safetensors",
    "model.json",
    "model.onnx",
}


@pytest.fixture(autouse=True)
def one_thread():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes: a bright ground that comes nearer downwards, and a red box, the nearest of
    all, somewhere."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "photos").mkdir()
    (folder / "depth").mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        photo = np.full((72, 96, 3), 90, np.uint8)
        depth = np.repeat(np.linspace(20, 120, 72).astype(np.uint8)[:, None], 96, axis=1)
        top, left = rng.integers(0, 40), rng.integers(0, 60)
        photo[top : top + 30, left : left + 34] = (220, 40, 30)
        depth[top : top + 30, left : left + 34] = 240
        photo = (photo + rng.integers(0, 12, photo.shape)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "photos" / f"s{k:02d}.png")
        Image.fromarray(depth).save(folder / "depth" / f"s{k:02d}.png")
    return folder


def settings(data: Path, **changes) -> DepthTrainSettings:  # type: ignore[no-untyped-def]
    base = DepthTrainSettings(
        data=str(data),
        epochs=4,
        batch=5,
        validation=0.2,
        validate_every=2,
        average=0.5,
        seed=4,
        network=TINY,
    )
    return dataclasses.replace(base, **changes)


def test_a_run_writes_everything_and_learns(data: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    chosen = settings(data, epochs=30, network=dataclasses.replace(TINY, members=1))
    result = train(DepthTask, chosen, tmp_path / "run", on_progress=seen.append)
    assert {p.name for p in (tmp_path / "run").iterdir()} == WRITTEN
    assert result.skipped == ()
    assert [p.epoch for p in seen] == list(range(1, 31))
    assert seen[-1].figures["loss"] < 0.7 * seen[0].figures["loss"]
    assert result.figures[SCORE] > 0.5
    assert [p.epoch for p in seen if p.validation] == list(range(2, 31, 2))
    records = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["epoch"] for r in records] == list(range(1, 31))
    assert (tmp_path / "run" / "curves.svg").read_text().startswith("<svg")
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert build(DepthTrainSettings, card["settings"]) == chosen
    photos = card["photos"]
    assert (photos["trained_on"], len(photos["validation"]), photos["held"]) == (10, 2, [])
    network = CompactDepth(tmp_path / "run" / "model.onnx")
    assert network.config == CompactDepthConfig.from_dict(card["network"])
    photo = np.asarray(Image.open(data / "photos" / "s03.png"))
    truth = Image.open(data / "depth" / "s03.png").resize((64, 48), Image.Resampling.BOX)
    assert spearman(network(photo).depth, np.asarray(truth)) > 0.5  # large = near, as in the maps


class Stop:
    """Presses Ctrl-C once, after some epochs: the run ends with the step after them."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(DepthTask, settings(data), folder)
    return folder


def test_a_run_gives_the_same_bits_again(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    torch.rand(7)
    train(DepthTask, settings(data), tmp_path / "run")
    for name in ("model.safetensors", "model.onnx", "metrics.jsonl"):
        assert (undisturbed / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


# Of eight epochs: within the first member, between the two, within the second.
AFTER = [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 6)), 7]


@pytest.mark.parametrize("after", AFTER)
def test_a_resumed_run_ends_in_the_same_bits(
    data: Path, undisturbed: Path, tmp_path: Path, after: int
) -> None:
    whole, parts = undisturbed, tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(DepthTask, settings(data), parts, on_progress=Stop(after))
    assert not (parts / "model.onnx").exists()
    torch.rand(7)  # whatever the process drew in between must not matter
    train(DepthTask, settings(data), parts, resume=True)
    for name in ("model.safetensors", "model.onnx", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_a_run_leaves_the_random_state_of_its_caller_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(DepthTask, settings(data, epochs=1), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy reddish and seventy greenish pictures."""
    folder = tmp_path_factory.mktemp("classes")
    for label, colour in enumerate(((200, 30, 30), (30, 200, 30))):
        (folder / str(label)).mkdir()
        for k in range(70):
            noise = np.random.default_rng(k).integers(0, 30, (32, 32, 3))
            Image.fromarray((np.asarray(colour) + noise).astype(np.uint8)).save(
                folder / str(label) / f"{k}.png"
            )
    return folder


def with_folds(data: Path, classes: Path) -> DepthTrainSettings:
    return settings(
        data,
        pretrain=str(classes),
        pretrain_epochs=2,
        pretrain_small=1,
        pretrain_batch=32,
        pretrain_erase=0.5,
        folds=2,
        epochs=1,
    )


@pytest.fixture(scope="module")
def undisturbed_folds(data: Path, classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "folds"
    train(DepthTask, with_folds(data, classes), folder)
    return folder


@pytest.mark.parametrize(
    "after", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 7]
)
def test_pretraining_and_folds_resume_to_the_same_bits(
    data: Path, classes: Path, undisturbed_folds: Path, tmp_path: Path, after: int
) -> None:
    """In pretraining, at its end, within a fold, within the kept members."""
    chosen = with_folds(data, classes)
    whole, parts = undisturbed_folds, tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(DepthTask, chosen, parts, on_progress=Stop(after))
    torch.rand(7)
    train(DepthTask, chosen, parts, resume=True)
    for name in ("model.safetensors", "model.onnx", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_folds_answer_for_every_photo_and_leave_the_kept_members_alone(
    data: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    chosen = settings(data, folds=3, epochs=20, network=dataclasses.replace(TINY, members=2))
    result = train(DepthTask, chosen, tmp_path / "folds", on_progress=seen.append)
    assert [p.stage for p in seen[::20]] == [
        *(f"fold {fold} of 3, member {member} of 2" for fold in (1, 2, 3) for member in (1, 2)),
        "member 1 of 2",
        "member 2 of 2",
    ]
    assert result.figures[SCORE] > 0.4  # of photos that the answering networks have not seen
    card = json.loads((tmp_path / "folds" / "model.json").read_text())
    assert (card["photos"]["trained_on"], card["photos"]["validation"]) == (12, [])
    assert card["photos"]["folds"] == [[f"s{k:02d}" for k in range(f, 12, 3)] for f in range(3)]
    assert card["network"]["calibration"] != list(TINY.calibration)
    train(DepthTask, dataclasses.replace(chosen, folds=0, validation=0.0), tmp_path / "none")
    assert (tmp_path / "folds" / "model.safetensors").read_bytes() == (
        tmp_path / "none" / "model.safetensors"
    ).read_bytes()


def test_the_mean_map_and_members_of_several_scales_are_trained_and_exported(
    data: Path, tmp_path: Path
) -> None:
    found = read_depth_data([data], dataclasses.replace(TINY, long_side=80))
    prior = mean_map(found, [0, 1, 2])
    assert prior.shape == (1, 1, 24, 32)
    assert float(prior.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(prior.std()) == pytest.approx(1.0, abs=1e-4)
    # the ground comes nearer downwards
    assert float(prior[0, 0, 20:].mean()) > float(prior[0, 0, :4].mean())
    network = dataclasses.replace(TINY, long_side=80, sides=(80, 64), prior=0.5, bits=5, group=32)
    result = train(
        DepthTask, settings(data, folds=2, side=64, epochs=20, network=network), tmp_path / "run"
    )
    assert result.figures[SCORE] > 0.4
    assert CompactDepth(tmp_path / "run" / "model.onnx").config.sides == (80, 64)
    from safetensors.numpy import load_file

    kept = load_file(tmp_path / "run" / "model.safetensors")["prior"]
    np.testing.assert_allclose(kept, mean_map(found, list(range(12))).numpy(), atol=1e-6)


def test_folds_keep_photos_of_one_place_together() -> None:
    names = ["00_1", "00_2", "01_1", "02_1", "02_2", "03_1"]
    assert fold_parts(names, 2) == [[0, 1, 3, 4], [2, 5]]
    assert fold_parts(names, 2, "photos") == [[0, 2, 4], [1, 3, 5]]
    assert fold_parts(names, 0) == []
    assert fold_parts(["a", "b", "c", "d"], 2) == [[0, 2], [1, 3]]
    assert fold_parts(names, 5) == [[0, 5], [1], [2], [3], [4]]  # four places only: one by one
    with pytest.raises(TrainingError, match="5 folds"):
        fold_parts(["a", "b"], 5)


def test_pretraining_gives_all_members_one_start(data: Path, classes: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(
        DepthTask,
        settings(data, pretrain=str(classes), pretrain_epochs=8, epochs=1),
        tmp_path / "run",
        on_progress=seen.append,
    )
    assert [p.stage for p in seen] == [*["pretraining"] * 8, "member 1 of 2", "member 2 of 2"]
    assert [p.step for p in seen[:2]] == [2, 4]  # 140 pictures in batches of 64
    assert seen[7].figures["accuracy"] > 0.6
    with pytest.raises(InputError, match="holds no classes"):
        train(DepthTask, settings(data, pretrain=str(data / "photos")), tmp_path / "none")
    one = tmp_path / "one"
    (one / "0").mkdir(parents=True)
    (one / "0" / "a.png").write_bytes((classes / "0" / "0.png").read_bytes())
    with pytest.raises(TrainingError, match="one class"):
        train(DepthTask, settings(data, pretrain=str(one)), tmp_path / "none")


def test_photos_without_a_map_and_broken_ones_are_skipped_and_named(
    data: Path, tmp_path: Path
) -> None:
    for part in ("photos", "depth"):
        (tmp_path / part).mkdir()
        for path in (data / part).iterdir():
            (tmp_path / part / path.name).write_bytes(path.read_bytes())
    (tmp_path / "depth" / "s00.png").unlink()
    (tmp_path / "photos" / "s01.png").write_bytes(b"no photo")
    (tmp_path / "photos" / "s02.png").write_bytes(
        (tmp_path / "photos" / "s02.png").read_bytes()[:200]
    )
    Image.fromarray(np.full((72, 96), 9, np.uint8)).save(tmp_path / "depth" / "s03.png")
    found = read_depth_data([tmp_path], TINY)
    assert len(found.names) == 8
    assert [name for name, _ in found.skipped] == ["s00.png", "s01.png", "s02.png", "s03.png"]
    assert found.ranks[0].shape == (24, 32)
    assert found.ranks[0].max() <= 1.0


def test_what_cannot_be_trained_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training data"):
        train(DepthTask, settings(tmp_path), tmp_path / "run")
    (tmp_path / "photos").mkdir()
    (tmp_path / "depth").mkdir()
    with pytest.raises(TrainingError, match="0 usable photos"):
        train(DepthTask, settings(tmp_path), tmp_path / "run")
    with pytest.raises(SettingsError, match="device"):
        train(DepthTask, settings(data, device="no-such-device"), tmp_path / "run")
    with pytest.raises(SettingsError, match="nothing to resume"):
        train(DepthTask, settings(data), tmp_path / "empty", resume=True)
    with pytest.raises(SettingsError, match="nothing to resume"):
        read_saved(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        train(DepthTask, settings(data), tmp_path / "file" / "run")


def test_a_loss_that_is_not_finite_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vizcomp.training.depth as training

    def broken(*arguments):  # type: ignore[no-untyped-def]
        loss, r = depth_loss(*arguments)
        return loss * float("nan"), r

    monkeypatch.setattr(training, "depth_loss", broken)
    with pytest.raises(TrainingError, match="not finite"):
        train(DepthTask, settings(data), tmp_path / "run")


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(DepthTask, settings(data, epochs=1), run)
    with pytest.raises(SettingsError, match="holds a run already"):
        train(DepthTask, settings(data, epochs=1), run)
    with pytest.raises(SettingsError, match="another seed"):
        train(DepthTask, settings(data, epochs=1, seed=5), run, resume=True)
    saved = read_saved(run)
    assert saved.pop("kind") == "depth"
    assert build(DepthTrainSettings, saved) == settings(data, epochs=1)
    (run / "checkpoint.pt").write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(DepthTask, settings(data, epochs=1), run, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"validation": 1.0},
        {"held_every": 1},
        {"folds": 1},
        {"side": 20},
        {"batch": "many"},
        {"hue": 1},
        {"network": {"x": 1}},
        {"kinds": "colours"},
        {"shares": [-1.0]},
        {"shares": [0.0, 0.0]},
        {"network": {"shared": True, "sides": [64, 64, 64], "members": 3, "long_side": 64}},
        {"network": {"pixels": 3}},
        {"network": {"deeper": -1}},
    ],
)
def test_settings_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(SettingsError):
        build(DepthTrainSettings, {"data": "x", **change})


def test_settings_round_trip_and_the_recipe_is_read(tmp_path: Path) -> None:
    chosen = DepthTrainSettings(data="x", network=TINY, half=True)
    assert build(DepthTrainSettings, json.loads(json.dumps(dataclasses.asdict(chosen)))) == chosen
    for name in ("compact_depth.toml", "depth_published.toml"):
        values = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / name)
        values.pop("kind", None)
        assert build(DepthTrainSettings, {**values, "data": "here"}).data == "here"
    (tmp_path / "bad.toml").write_text("epochs = [")
    with pytest.raises(SettingsError, match=r"bad\.toml"):
        read_recipe(tmp_path / "bad.toml")


def test_splits_do_not_overlap_and_held_photos_are_every_nth() -> None:
    names = [f"{i // 10:02d}_{i % 10}" for i in range(250)]
    train, validation, held = split_photos(names, 5, 0.1)
    assert held == list(range(4, 250, 5))
    assert (len(train), len(validation)) == (180, 20)
    assert sorted(train + validation + held) == list(range(250))
    assert split_photos(names[:3], 0, 0.0) == ([0, 1, 2], [], [])
    train, validation, _ = split_photos(names, 0, 0.5, "03_,24_")
    assert validation == [*range(30, 40), *range(240, 250)]
    assert sorted(train + validation) == list(range(250))
    with pytest.raises(TrainingError, match="called 25_"):
        split_photos(names, 0, 0.0, "03_,25_")


def test_the_loss_ignores_scale_and_shift_and_sees_order() -> None:
    torch.manual_seed(0)
    target = torch.nn.functional.avg_pool2d(torch.randn(3, 1, 28, 36), 5, 1)
    target = (target - target.mean((2, 3), keepdim=True)) / target.std((2, 3), keepdim=True)
    same, r = depth_loss(target * 1.7 + 40, target, 0.25)
    assert float(r.min()) > 0.999
    assert float(same) < 0.01
    shuffled, _ = depth_loss(target.flip(2), target, 0.25)
    reversed_, r = depth_loss(-target, target, 0.25)
    assert float(shuffled) > float(same) + 0.3
    assert float(r.max()) < -0.999
    assert float(reversed_) > 2.0


def test_the_loss_looks_at_what_is_known_only() -> None:
    torch.manual_seed(0)
    target = torch.nn.functional.avg_pool2d(torch.randn(2, 1, 28, 36), 5, 1)
    target = target / target[:, :, 9:].std((2, 3), keepdim=True)
    known = torch.ones_like(target)
    known[:, :, :9] = 0
    wrong = torch.where(known > 0, target, 40 * torch.randn_like(target))
    loss, r = depth_loss(wrong, target.where(known > 0, 0), 0.25, known)
    assert float(r.min()) > 0.999
    assert float(loss) < 0.02
    assert float(depth_loss(wrong, target, 0.25)[1].max()) < 0.9
    # two answers, one right, one reversed: weights say which counts
    both = torch.cat([target, -target], 1)
    good, r = depth_loss(both, target, 0.0, weight=torch.tensor([[2.0, 0.0]] * 2))
    bad, _ = depth_loss(both, target, 0.0, weight=torch.tensor([[0.0, 2.0]] * 2))
    assert r.shape == (2, 2)
    assert float(bad) > float(good) + 1.5


def test_ranks_leave_out_the_sky_and_keep_holes() -> None:
    nearness = -np.arange(1, 101, dtype=np.float32).reshape(10, 10)  # nearest first
    nearness[:3] = -65535.0
    nearness[9, 9] = np.nan
    ranks = ranked(nearness)
    assert np.isnan(ranks[9, 9])
    assert (ranks[:3] == np.float32(SKY)).all()
    assert ranks[3, 0] == 1.0
    assert ranks[9, 8] == 0.0
    plain = ranked(np.arange(100, dtype=np.float32).reshape(10, 10))  # one farthest place is no sky
    assert plain.min() == 0.0


@pytest.fixture(scope="module")
def distances(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scenes, wide, as distances in 16 bits with holes."""
    folder = tmp_path_factory.mktemp("distances")
    (folder / "photos").mkdir()
    (folder / "depth").mkdir()
    for path in sorted((data / "photos").iterdir()):
        photo = Image.open(path).resize((192, 60))
        depth = np.asarray(
            Image.open(data / "depth" / path.name).resize((192, 60), Image.Resampling.NEAREST)
        ).astype(np.float32)
        metres = np.rint(40000 / (depth + 1)).astype(np.uint16)
        metres[:4] = 0
        photo.save(folder / "photos" / f"wide_{path.name}")
        Image.fromarray(metres).save(folder / "depth" / f"wide_{path.name}")
    return folder


def test_several_folders_of_maps_of_several_kinds_train_one_shared_encoder(
    data: Path, distances: Path, tmp_path: Path
) -> None:
    network = dataclasses.replace(TINY, members=3, shared=True, deeper=1, pixels=3000, bits=6)
    chosen = dataclasses.replace(
        settings(data),
        data=os.pathsep.join([str(data), str(distances)]),
        kinds="nearness,metres",
        shares=(1.0, 2.0),
        checked="s00,wide_s01,wide_s02",
        epochs=25,
        network=network,
    )
    result = train(DepthTask, chosen, tmp_path / "run")
    assert result.figures[SCORE] > 0.5
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["photos"]["validation"] == ["s00", "wide_s01", "wide_s02"]
    assert card["photos"]["trained_on"] == 21
    assert build(DepthTrainSettings, card["settings"]) == chosen
    answer = CompactDepth(tmp_path / "run" / "model.onnx")(
        np.asarray(Image.open(distances / "photos" / "wide_s01.png"))
    )
    assert answer.depth.shape == network.scaled(60, 192) == (31, 98)  # about 3000 pixels
    truth = (
        1.0
        / np.asarray(
            Image.open(distances / "depth" / "wide_s01.png").resize(
                (98, 31), Image.Resampling.NEAREST
            ),
            np.float32,
        )[3:]
    )
    assert spearman(answer.depth[3:], truth) > 0.5
    # going on from its weights: better after one epoch than from scratch
    again = dataclasses.replace(chosen, start=str(tmp_path / "run" / "model.safetensors"), epochs=1)
    first = train(DepthTask, again, tmp_path / "again").figures[SCORE]
    scratch = train(DepthTask, dataclasses.replace(again, start=""), tmp_path / "scratch").figures[
        SCORE
    ]
    assert first > scratch


def test_folders_kinds_shares_and_weights_that_do_not_fit_are_told(
    data: Path, distances: Path, tmp_path: Path
) -> None:
    two = os.pathsep.join([str(data), str(distances)])
    with pytest.raises(SettingsError, match="3 kinds of maps for 2 folders"):
        train(
            DepthTask,
            dataclasses.replace(settings(data), data=two, kinds="metres,metres,metres"),
            tmp_path / "a",
        )
    with pytest.raises(SettingsError, match="1 shares for 2 folders"):
        train(
            DepthTask,
            dataclasses.replace(settings(data), data=two, kinds="nearness,metres", shares=(1.0,)),
            tmp_path / "b",
        )
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(DepthTask, settings(data, start=str(tmp_path / "w.safetensors")), tmp_path / "c")
    train(DepthTask, settings(data, epochs=1), tmp_path / "small")
    wider = dataclasses.replace(TINY, channels=(8, 8, 12, 20))
    with pytest.raises(TrainingError, match="encoder does not fit"):
        train(
            DepthTask,
            settings(data, network=wider, start=str(tmp_path / "small" / "model.safetensors")),
            tmp_path / "d",
        )


PUBLISHED = CompactDepthConfig(
    encoder="efficientnet-lite0",
    channels=(32, 8, 12, 16),
    pyramid=(12, 8),
    members=2,
    shared=True,
    long_side=64,
)


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `recipes/depth_encoder.py` writes, of an encoder that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        state = EfficientNetLite0().state_dict()
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    state = {f"encoder.{name}": value for name, value in state.items()}
    save_file(state, path, {"licence": "Apache-2.0", "source": "a package"})
    return path


def test_a_published_encoder_goes_on_learning_where_it_is_not_frozen(
    data: Path, encoder_file: Path, tmp_path: Path
) -> None:
    chosen = settings(data, network=PUBLISHED, start=str(encoder_file), frozen=2, average=0.0)
    train(DepthTask, dataclasses.replace(chosen, epochs=2), tmp_path / "run")
    before = load_file(encoder_file)
    after = load_file(tmp_path / "run" / "model.safetensors")
    same = {name for name, value in before.items() if torch.equal(after[f"0.{name}"], value)}
    # the stem, the three blocks to 1/4 and the two to 1/8
    frozen = ("encoder.stem.", *(f"encoder.blocks.{n}." for n in range(5)))
    assert {name for name in before if name.startswith(frozen)} <= same
    learned = [name for name in before if name.endswith("weight") and not name.startswith(frozen)]
    assert not same & set(learned)
    assert "0.adapters.0.0.weight" in after
    # whose work it goes on from stays with it
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["origin"] == {"source": "a package", "licence": "Apache-2.0"}
    again = dataclasses.replace(chosen, start=str(tmp_path / "run" / "model.safetensors"))
    assert "efficientnet-lite0 (a package, Apache-2.0)" in DepthTask.beginning(again)
    assert DepthTask.beginning(settings(data)) == "starts from fresh weights, encoder residual"
    network = CompactDepth(tmp_path / "run" / "model.onnx")
    assert network.config.encoder == "efficientnet-lite0"
    assert network(np.asarray(Image.open(data / "photos" / "s03.png"))).depth.shape == (48, 64)


def test_a_tensors_rate_follows_its_size_in_a_published_encoder(
    data: Path, encoder_file: Path
) -> None:
    chosen = settings(data, network=PUBLISHED, start=str(encoder_file), encoder_rate=2.0)
    task = DepthTask(chosen, Processes("cpu"))
    task.step(0)
    weights = {id(p): name for name, p in task.model.named_parameters()}
    start = load_file(encoder_file)
    rates = {weights[id(p)]: g["peak"] for g in task.optimiser.param_groups for p in g["params"]}
    name = "encoder.blocks.4.depthwise.weight"
    size = float(start[name].square().mean().sqrt())
    assert rates[name] == pytest.approx(chosen.learning_rate * 2.0 * size)
    assert rates["decoders.0.out.weight"] == chosen.learning_rate


def test_a_published_encoder_needs_a_start_that_fits(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="to learn from nothing"):
        settings(data, network=PUBLISHED)
    with pytest.raises(SettingsError, match="does not go with the encoder"):
        settings(data, network=PUBLISHED, start="x.safetensors", pretrain="pictures")
    with pytest.raises(SettingsError, match="frozen = 1"):
        settings(data, frozen=1)
    other = str(undisturbed / "model.safetensors")  # of the residual encoder
    with pytest.raises(TrainingError, match="encoder does not fit"):
        train(DepthTask, settings(data, network=PUBLISHED, start=other), tmp_path / "run")
