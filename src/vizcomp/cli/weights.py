"""What is bundled, cached or downloadable: the commands of `weights`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vizcomp.cli.options import Offline
from vizcomp.cli.voice import Voice
from vizcomp.files.place import cache_folder

app = typer.Typer(help="Weight files: what is bundled, cached, downloadable.", no_args_is_help=True)
Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        metavar="DATA",
        help="CIFAR-10, by which the normalisation of inception-v3 is chosen and kept.",
        show_default=False,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="As weights list shows them.", show_default=False),
]


@app.command("list")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on standard output.")] = False,
) -> None:
    """Every file: where it stands, how large it is, its fingerprint and its licence."""
    from vizcomp.weights import cache
    from vizcomp.weights import table as weights_table

    rows = [_about(row) for row in weights_table.rows()]
    rows += [
        {
            "id": p.stem,
            "what": "a model of yours",
            "state": cache.added_state(p),
            "bytes": p.stat().st_size,
            "path": str(p),
        }
        for p in cache.added()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("name", "state", "size", "sha256", "licence", "what"):
        table.add_column(
            name,
            justify="right" if name == "size" else "left",
            overflow="fold",
            no_wrap=name not in ("licence", "what"),
        )
    for one in rows:
        size = f"{one['bytes'] / 1e6:,.1f} MB" if one["bytes"] else ""
        known = str(one.get("sha256", ""))[:12] or ("unchecked" if one.get("sources") else "")
        table.add_row(one["id"], one["state"], size, known, one.get("licence", ""), one["what"])
    console = Console()
    if not console.is_terminal:  # for grep and the like: a line for each
        console.width = 1000
    console.print(table)


def _about(row: Any) -> dict[str, Any]:
    from vizcomp.weights import cache

    state = cache.state(row)
    record = cache.recorded(row.id)
    path = cache.place(row) if state not in ("downloadable", "missing") else None
    return {
        "id": row.id,
        "what": row.what,
        "state": state,
        "bytes": path.stat().st_size if path else row.size,
        "sha256": row.sha256 or record.get("sha256", ""),
        "licence": row.licence,
        "paper": row.paper,
        "normalisation": row.normalisation,
        "accuracy": row.accuracy,
        "sources": [str(source) for source in row.sources],
        "source": record.get("source", ""),
        "path": str(path) if path else "",
    }


@app.command()
def pull(names: Names = None, calibrate: Calibrate = None, offline: Offline = False) -> None:
    """Download published files into the cache; what is there already stays."""
    from vizcomp.errors import SettingsError
    from vizcomp.weights import cache
    from vizcomp.weights import table as weights_table

    if not names:
        raise SettingsError(
            "nothing to pull",
            f"name one or more of {', '.join(r.id for r in weights_table.PUBLISHED)}",
        )
    _no_calibration(calibrate, names)
    voice = Voice(quiet=False, verbose=False)
    for name in [weights_table.find(n).id for n in names]:
        with voice.downloads():
            there = cache.place(weights_table.find(name)).is_file()
            path = cache.obtain(name, offline=offline, check=_check_of(name))
        print(path)
        _tell(name, calibrate, fingerprint=there)  # a download says it itself


def _tell(name: str, calibrate: Path | None, *, fingerprint: bool = True) -> None:
    """What is known of a file that has come."""
    from vizcomp.weights import cache
    from vizcomp.weights import table as weights_table

    voice = Voice(quiet=False, verbose=False)
    if fingerprint and (digest := cache.recorded(name).get("sha256")):
        voice.say(f"{name}: sha256 {digest}")
    if str(cache.recorded(name).get("source", "")).endswith("of another size"):
        voice.say(
            f"{name}: not the published file, which has {weights_table.find(name).size:,} bytes"
        )
    if name != "inception-v3":
        return
    from vizcomp.graphs import classifiers

    if calibrate is not None:
        images, labels = classifiers.calibration_images(calibrate)
        voice.say(f"{name}: choosing the normalisation on {len(labels)} images")
        figures = classifiers.calibrate(name, images, labels)
        voice.say(
            "accuracy by normalisation: "
            + ", ".join(f"{year} {figure:.1%}" for year, figure in figures.items())
        )
        if max(figures.values()) < classifiers.LEAST_CALIBRATED:
            voice.warn(
                "neither is near the published 94%: these are other weights, or other data than"
                " CIFAR-10"
            )
    remark = cache.recorded(name).get("words")
    voice.say(
        f"normalisation of {classifiers.year_of(name)}"
        + ("" if remark else " assumed; --calibrate DATA chooses it")
    )


@app.command()
def add(
    name: Annotated[
        str,
        typer.Argument(
            help="A published file's name, or a new one for a model of yours.", show_default=False
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Your copy of it.", show_default=False)],
    calibrate: Calibrate = None,
) -> None:
    """Copy a file of your own into the cache: a published one whose links are dead, or a model you
    trained."""
    from vizcomp.weights import cache

    _no_calibration(calibrate, [name])
    print(cache.add(name, file, check=_check_of(name)))
    _tell(name, calibrate)


def _check_of(name: str) -> Callable[[Path], None] | None:
    """What tells whether a file is that of a published network."""
    if name == "nyu":
        from vizcomp.depth.densedepth import check_file, need_tensorflow

        need_tensorflow()
        return check_file
    if name == "inception-v3":
        from vizcomp.graphs import classifiers

        return classifiers.check_published
    from vizcomp.depth import published

    return published.check_file(name) if name in published.KNOWN else None


def _no_calibration(calibrate: Path | None, names: list[str]) -> None:
    from vizcomp.errors import SettingsError

    if calibrate is not None and "inception-v3" not in names:
        raise SettingsError("--calibrate is of inception-v3 only", "omit it")
    # before anything is fetched or copied for it
    if calibrate is not None and not os.path.exists(calibrate):
        raise SettingsError(
            f"{calibrate} does not exist", "give --calibrate labelled images, as CIFAR-10"
        )


@app.command()
def path(
    name: Annotated[
        str, typer.Argument(help="As weights list shows it.", metavar="[NAME]", show_default=False)
    ] = "",
) -> None:
    """Where a file is; without a name, the cache folder. Nothing is downloaded."""
    from vizcomp.weights import cache

    if not name:
        print(cache_folder())
        return
    print(cache.added_model(name) or cache.obtain(name, offline=True))


@app.command()
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A codec or classifier, by name or path.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The .onnx file to write.", show_default=False
        ),
    ],
    part: Annotated[
        str,
        typer.Option(
            "--part",
            metavar="decoder|encoder",
            help="Of a codec; default: decoder.",
            show_default=False,
        ),
    ] = "",
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations", min=1, metavar="N", help="Of a codec; default: all.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.")
    ] = False,
    offline: Offline = False,
) -> None:
    """Write a codec's decoder or encoder, or a classifier, as an ONNX file for other programs."""
    from vizcomp.errors import OutputError
    from vizcomp.files.write import check_output_folder, write_atomic
    from vizcomp.neural.export import exported

    if os.path.exists(output) and not overwrite:
        raise OutputError(f"{output} exists already", "--overwrite replaces it")
    data = exported(name, part=part, iterations=iterations, offline=offline)
    check_output_folder(output.parent)
    write_atomic(output, data)
    print(output)


@app.command()
def verify(names: Names = None) -> None:
    """Compute the checksums of what is here; exit code 1 if a file is not what it was."""
    from vizcomp.weights import cache
    from vizcomp.weights import table as weights_table

    all_names = [row.id for row in weights_table.rows()] + [path.stem for path in cache.added()]
    states: dict[str, str] = {}
    for name in names or all_names:
        if (own := cache.added_model(name)) is not None:
            states[name] = cache.added_state(own, thorough=True)
        else:
            states[name] = cache.state(weights_table.find(name), thorough=True)
    wrong = False
    for name, state in states.items():
        if state == "downloadable" and not names:
            continue
        wrong |= state in ("changed", "missing", "downloadable")
        spoken = dict.fromkeys(("bundled", "cached", "added"), "ok")
        spoken["downloadable"] = "not in the cache"
        print(f"{name}: {spoken.get(state, state)}")
    if wrong:
        raise typer.Exit(1)


@app.command()
def clear(
    names: Names = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All published files; models of yours stay.")
    ] = False,
) -> None:
    """Remove files from the cache."""
    from vizcomp.errors import SettingsError
    from vizcomp.weights import cache
    from vizcomp.weights import table as weights_table

    if not names and not everything:
        raise SettingsError("nothing to clear", "name what is to go, or say --all")
    for name in names or [row.id for row in weights_table.PUBLISHED]:
        freed = cache.clear(name)
        if freed or names:
            print(f"{name}: {freed / 1e6:,.1f} MB freed")
