"""What `eval` relies on, for every codec that it can open: a new codec joins the list and passes
all of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from kit import picture

from vizcomp import metrics
from vizcomp.evaluation import codecs
from vizcomp.evaluation.sweeps import Codec, Sweep
from vizcomp.neural.models import MODELS

DJPEG = ("djpeg", "djpeg:guide=uniform", "djpeg:guide=detail,table=photo")
# recurrent codecs with random weights, which code all and improve nothing
UNTRAINED = ("of any size", "of 32x32")
SPECS = (*codecs.BASELINES, *DJPEG, *MODELS, *UNTRAINED)


@functools.cache
def opened(spec: str) -> Codec:
    if spec == "jxl":
        pytest.importorskip("pillow_jxl")
    return codecs.open_codec(spec)


@pytest.fixture(scope="module", params=SPECS)
def codec(request: pytest.FixtureRequest, any_model: Path, small_model: Path) -> Codec:
    return opened(
        {"of any size": str(any_model), "of 32x32": str(small_model)}.get(
            request.param, request.param
        )
    )


@pytest.fixture(scope="module")
def sources(codec: Codec) -> list[np.ndarray]:
    """Images that the codec is for, two of one size and one of another where it takes any; nobody
    may write into them."""
    made = [
        picture(seed, *size)
        for seed, size in enumerate(
            [(32, 32)] * 3 if codec.native else [(32, 32), (32, 32), (41, 57)]
        )
    ]
    for image in made:
        image.setflags(write=False)
    return made


@pytest.fixture(scope="module")
def curves(codec: Codec, sources: list[np.ndarray]) -> dict[str, list[Sweep]]:
    return sweeps_of(codec, sources)


def sweeps_of(codec: Codec, sources: Sequence[np.ndarray]) -> dict[str, list[Sweep]]:
    """By curve."""
    found: dict[str, list[Sweep]] = {name: [] for name in codec.series}
    for sweep in codec.sweep(sources, len(sources)):
        found[sweep.series or codec.name].append(sweep)
    return found


def test_every_codec_of_the_module_is_in_the_list(any_model: Path) -> None:
    ours = {
        c
        for _, c in inspect.getmembers(codecs, inspect.isclass)
        if hasattr(c, "sweep") and c is not codecs.Codec
    }
    specs = [s for s in SPECS if s not in UNTRAINED and s != "jxl"]
    assert {type(opened(spec)) for spec in specs} == ours


def test_it_says_who_it_is(codec: Codec) -> None:
    for text in (codec.name, codec.version, *codec.series):
        assert isinstance(text, str)
        assert text == text.strip() != ""
    assert isinstance(codec.fingerprint, str)
    assert isinstance(codec.ours, bool)
    assert codec.native >= 0
    assert codec.series[0] == codec.name
    assert len(set(codec.series)) == len(codec.series)


def test_each_setting_gives_a_size_and_an_image_for_each_source(
    curves: dict[str, list[Sweep]], sources: list[np.ndarray]
) -> None:
    for curve in curves.values():
        assert len(curve) >= 2
        assert len({sweep.setting for sweep in curve}) == len(curve)
        for sweep in curve:
            assert sweep.errors == ()
            assert sweep.encode_seconds > 0
            assert sweep.decode_seconds > 0
            for source, result, size, payload in zip(
                sources, sweep.results, sweep.sizes, sweep.payloads, strict=True
            ):
                assert result is not None
                assert (result.shape, result.dtype) == (source.shape, np.uint8)
                assert size is not None
                assert payload is not None
                assert 0 < payload <= size
    assert len({tuple(sweep.setting for sweep in curve) for curve in curves.values()}) == 1, (
        "curves have the same settings"
    )


def test_settings_go_from_few_bytes_to_many(curves: dict[str, list[Sweep]]) -> None:
    for curve in curves.values():
        sizes = [sum(size or 0 for size in sweep.sizes) for sweep in curve]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("codec", [spec for spec in SPECS if spec not in UNTRAINED], indirect=True)
def test_more_bytes_come_nearer_to_the_source(
    curves: dict[str, list[Sweep]], sources: list[np.ndarray]
) -> None:
    for curve in curves.values():
        near = [
            np.mean(
                [
                    metrics.psnr(a, b)
                    for a, b in zip(sources, s.results, strict=True)
                    if b is not None
                ]
            )
            for s in curve
        ]
        assert near[0] < near[-1]


def test_the_same_images_give_the_same_again(
    codec: Codec, curves: dict[str, list[Sweep]], sources: list[np.ndarray]
) -> None:
    before = [image.copy() for image in sources]
    second = sweeps_of(codec, sources)
    assert all(map(np.array_equal, before, sources)), "sources are left alone"
    for name, curve in curves.items():
        for one, other in zip(curve, second[name], strict=True):
            assert (one.setting, one.sizes, one.payloads) == (
                other.setting,
                other.sizes,
                other.payloads,
            )
            assert all(
                np.array_equal(a, b) for a, b in zip(one.results, other.results, strict=True)
            )


def test_an_image_s_file_does_not_depend_on_its_neighbours(
    codec: Codec, curves: dict[str, list[Sweep]], sources: list[np.ndarray]
) -> None:
    together, alone = curves[codec.name], sweeps_of(codec, sources[1:2])[codec.name]
    for one, other in zip(together, alone, strict=True):
        assert one.sizes[1:2] == other.sizes
        assert (one.results[1] is None) == (other.results[0] is None) is False
        apart = np.abs(np.subtract(one.results[1], other.results[0], dtype=int))  # type: ignore[arg-type]
        assert apart.max() <= 1, "only the sums of a network may round differently"


def test_no_images_are_no_error(codec: Codec) -> None:
    for sweep in codec.sweep([], 0):
        assert (sweep.sizes, sweep.payloads, sweep.results, sweep.errors) == ([], [], [], ())


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (33, 31)])
def test_an_image_of_an_odd_size_is_coded_or_is_its_own_error(
    codec: Codec, size: tuple[int, int]
) -> None:
    usual = picture(0)
    for sweep in codec.sweep([usual, picture(1, *size)], 2):
        assert sweep.results[0] is not None
        assert sweep.sizes[0] is not None
        result, wrong = sweep.results[1], [index for index, _ in sweep.errors]
        if codec.native and size != (codec.native, codec.native):
            assert (wrong, result, sweep.sizes[1], sweep.payloads[1]) == ([1], None, None, None)
            assert all(why and "\n" not in why for _, why in sweep.errors)
        else:
            assert wrong == []
            assert result is not None
            assert result.shape == (*size, 3)
