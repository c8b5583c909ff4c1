"""The recurrent codec as a verb: image to .vzc bytes, and back.

    codec = NeuralCodec.load("photo")
    data = codec.encode(image)              # uint8 (H, W, 3) or (H, W)
    image = decode(data).image              # finds the model by its fingerprint

The bits, not the floating-point numbers, are what encoder and decoder share: entropy coding is
integer (`entropy`), so a file decodes to the same bits everywhere, and the networks only turn bits
into an image, equal up to the rounding of the last step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.errors import FormatError, InputError, ModelError, SettingsError, first_line
from vizcomp.graphs import classifiers
from vizcomp.graphs.codecs import CodecConfig, codec_config, shapes
from vizcomp.graphs.recurrent import Weights
from vizcomp.neural.analysis import TOLD, Analyser, Search
from vizcomp.neural.arrays import Bits, Pixels, bit_limit, to_grey
from vizcomp.neural.models import (
    CLASSIFIER,
    CLASSIFIER_PREFIX,
    CONTEXT_PREFIX,
    MODEL_HINT,
    fingerprint,
    model_path,
    read_model,
)
from vizcomp.neural.spectral import open_network
from vizcomp.neural.tiling import Tiling
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.frame import check_image
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc

PART = 192  # side of the part of a large image that says how many iterations will fit
LARGE = 6  # times such a part's pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """An image from a file.

    Attributes:
        image: uint8 (H, W, 3) RGB, or (H, W) where the source was grey.
        header: what the file says.
        iterations: how many were decoded.
        complete: False where the file was cut off.
        problem: one line about what is missing.
    """

    image: Pixels
    header: vzc.Header
    iterations: int
    complete: bool = True
    problem: str = ""


class NeuralCodec:
    """A trained codec, ready to encode and decode, by ONNX Runtime.

    Attributes:
        config, weights: of its networks; float32 arrays by the names of torch's modules.
        name: by which it was asked for.
        fingerprint: 4 bytes that name it in a file: of the SHA-256 of its configuration, weights
            and context model.
        words: what its training wrote about it.
        iterations: how many there can be; `default_iterations` how many there are unless asked.
        native: side of the images it is for, 0 for any.
    """

    def __init__(
        self,
        config: CodecConfig,
        weights: Weights,
        context: coding.ContextModel,
        metadata: dict[str, Any],
        name: str,
        *,
        threads: int = 0,
    ) -> None:
        self.config, self.weights = config, weights
        self.context = context
        self.words = metadata
        self.name = name
        self.iterations: int = config.iterations
        self.default_iterations = min(
            self.iterations, int(metadata.get("default_iterations", self.iterations))
        )
        self.native: int = config.native
        self.fingerprint = fingerprint(config.to_dict(), weights, context)
        network = open_network(config, weights, threads=threads)
        self._analyser = Analyser(network, weights, context, metadata, threads)
        self._tiling = Tiling(network, self._analyser)
        if tuple(context.channels) != tuple(config.bits):
            raise ModelError(
                f"{name}: the context model is of another codec", "train or fetch the model again"
            )

    @property
    def search(self) -> Search:
        """The objective of the search at encode time."""
        return self._analyser.search

    @search.setter
    def search(self, search: Search) -> None:
        self._analyser.search = search

    def tell(self, told: str) -> None:
        """What the encoder is told from now on: to see whether a codec codes a picture or a label.

        Args:
            told: "answer", its classifier's, as in use; "wrong", that answer with every class in
                the place of the one before it; "nothing".

        Raises:
            SettingsError: another word, or a codec whose encoder is never told an answer.
        """
        if told not in TOLD:
            raise SettingsError(f"an encoder cannot be told {told!r}", f"use {', '.join(TOLD)}")
        if not self.words.get("classifier"):
            raise SettingsError(f"the encoder of {self.name} is told no answer", "omit told")
        self._analyser.told = told

    @classmethod
    def load(cls, name: str | Path = "photo", *, threads: int = 0) -> NeuralCodec:
        """A bundled codec (`photo`, `cifar`, `cifar-label`), or one from a .safetensors file.

        Args:
            threads: that compute together; 0: as many as there are cores.

        Raises:
            ModelError: no such file, damaged, or no codec of vizcomp.
            WeightsMissingError: a bundled file is missing.
        """
        path = model_path(name)
        metadata, arrays = read_model(path)
        if metadata.get("kind") != "codec":
            raise ModelError(f"{path} holds no codec of vizcomp", MODEL_HINT)
        saved = {
            k: v for k, v in arrays.items() if not k.startswith((CONTEXT_PREFIX, CLASSIFIER_PREFIX))
        }
        try:
            config = codec_config(dict(metadata.get("network", {})))
            if {k: v.shape for k, v in saved.items()} != shapes(config):
                raise ModelError(
                    f"{path}: the weights do not fit the network they name", MODEL_HINT
                )
            tables = {
                k.removeprefix(CONTEXT_PREFIX): v
                for k, v in arrays.items()
                if k.startswith(CONTEXT_PREFIX)
            }
            context = (
                coding.ContextModel.from_arrays(tables)
                if tables
                else coding.ContextModel.flat(config.bits)
            )
            weights = {k: np.asarray(v, np.float32) for k, v in saved.items()}
            codec = cls(config, weights, context, metadata, str(name), threads=threads)
            if metadata.get(CLASSIFIER) is not None:
                own = {
                    k.removeprefix(CLASSIFIER_PREFIX): v
                    for k, v in arrays.items()
                    if k.startswith(CLASSIFIER_PREFIX)
                }
                file = classifiers.from_arrays(
                    dict(metadata[CLASSIFIER]), own, f"the classifier in {path}", MODEL_HINT
                )
                codec._analyser.classifier = classifiers.Classifier(file, threads=threads)
            return codec
        except (
            TypeError,
            ValueError,
            RuntimeError,
            LookupError,
            AttributeError,
            OverflowError,
        ) as exc:
            # the words are the file's: they may be anything
            raise ModelError(
                f"{path}: its configuration is invalid: {first_line(exc)}", MODEL_HINT
            ) from exc

    # encoding

    def encode(
        self,
        image: Pixels,
        *,
        iterations: int | None = None,
        bpp: float | None = None,
        search: int | None = None,
        metadata: Sequence[tuple[int, bytes]] = (),
    ) -> bytes:
        """The .vzc file of an image.

        Args:
            image: uint8 (H, W, 3) RGB or (H, W) grey, from 1x1.
            iterations: 1..`self.iterations`; None for the model's default.
            bpp: as many iterations as fit into this many bits of file for each pixel, one at least.
            search: candidates tried in each iteration, in rounds of twelve (`neural.search`, which
                needs torch), in a photo for each square of 64 pixels. 0: none. None: none, but
                where the model was trained for a classifier up to `MEND` for images on which that
                classifier's answer is another than on the source; these are tried after any other
                search as well.

        Raises:
            SettingsError: iterations or bpp out of range.
            InputError: the model is for images of another size.
        """
        check_image(image)
        height, width = image.shape[:2]

        def packed(chunks: Sequence[bytes]) -> bytes:
            return vzc.pack(
                chunks,
                model=self.fingerprint,
                width=width,
                height=height,
                grey=image.ndim == 2,
                metadata=metadata,
            )

        if bpp is None:
            return packed(self._chunks(image, iterations, search))
        most = self._many(self.iterations if iterations is None else iterations)
        likely = self._likely(image, most, bpp)
        while True:
            chunks = self._chunks(image, likely, search)
            data = packed(chunks)
            if likely == most or 8 * len(data) > bpp * width * height:
                break
            likely = most  # the part was dearer than the whole
        while len(chunks) > 1 and 8 * len(data) > bpp * width * height:
            chunks.pop()
            data = packed(chunks)
        return data

    def _chunks(self, image: Pixels, iterations: int | None, search: int | None) -> list[bytes]:
        """The payload of each iteration."""
        codes = self.codes(image, iterations=iterations, search=search)
        return [coding.encode(self.context, [plane], codes[:t]) for t, plane in enumerate(codes)]

    def _likely(self, image: Pixels, most: int, bpp: float) -> int:
        """One iteration more than will fit into `bpp`, by the middle of a large image; at most
        `most`.

        Iterations that the file has no room for are most of the time at low rates.
        """
        height, width = image.shape[:2]
        if height * width < LARGE * PART**2:
            return most
        top, left = (max(0, (side - PART) // 2) for side in (height, width))
        part = image[top : top + PART, left : left + PART]
        chunks = self._chunks(np.ascontiguousarray(part), most, 0)
        sizes = 8 * np.cumsum([len(chunk) for chunk in chunks]) / (part.shape[0] * part.shape[1])
        return min(most, int((sizes <= bpp).sum()) + 1)

    def encode_many(
        self, images: Pixels, *, iterations: int | None = None, search: int | None = None
    ) -> list[bytes]:
        """The files of N images of one size: uint8 (N, H, W, 3) to N strings. Quicker than one by
        one."""
        return self.files(
            self.codes_many(images, iterations=iterations, search=search), *images.shape[1:3]
        )

    def files(self, codes: Sequence[Bits], height: int, width: int) -> list[bytes]:
        """The files of N images of one size whose bits are known, as `codes_many` gives them."""
        chunks = [
            coding.encode_batch(self.context, [plane], codes[:t]) for t, plane in enumerate(codes)
        ]
        return [
            vzc.pack(c, model=self.fingerprint, width=width, height=height)
            for c in zip(*chunks, strict=True)
        ]

    def payloads(
        self, images: Pixels, *, iterations: int | None = None, search: int | None = None
    ) -> list[bytes]:
        """Payloads for a pack: all iterations of an image coded together. uint8 (N, H, W, 3) to N
        strings."""
        codes = self.codes_many(images, iterations=iterations, search=search)
        return coding.encode_batch(self.context, codes, [])

    def codes(
        self, image: Pixels, *, iterations: int | None = None, search: int | None = None
    ) -> list[Bits]:
        """The bits of an image: uint8 (bits[t], rows, columns) of zeros and ones for each
        iteration."""
        check_image(image)
        many = self._many(iterations)
        self._check_size(*image.shape[:2])
        return self._tiling.codes(image, many, search)

    def codes_many(
        self, images: Pixels, *, iterations: int | None = None, search: int | None = None
    ) -> list[Bits]:
        """The bits of N images of one size: uint8 (N, H, W, 3) to uint8 (N, bits[t], rows, columns)
        for each iteration."""
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
            or 0 in images.shape[1:]
        ):
            raise ValueError(
                f"images are a uint8 array (N, H, W, 3), not {images.dtype} {images.shape}"
            )
        many = self._many(iterations)
        self._check_size(*images.shape[1:3])
        return self._tiling.codes_many(images, many, search)

    # decoding

    def decode(
        self,
        data: bytes,
        *,
        iterations: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
    ) -> Decoded:
        """The image of a .vzc file that this model wrote.

        Args:
            iterations: stop after so many; None: all there are.
            max_pixels: a larger image is refused by its header.
            allow_truncated: decode the complete iterations of a file that was cut off.

        Raises:
            FormatError: damaged, cut off, too large, or no .vzc file.
            ModelError: another model wrote it.
            SettingsError: `iterations` below 1.
        """
        file = vzc.unpack(data, max_pixels=max_pixels, allow_truncated=allow_truncated)
        header = file.header
        if header.model != self.fingerprint:
            raise ModelError(
                f"the file was written by model {header.model.hex()}, not by {self.name}"
                f" ({self.fingerprint.hex()})"
            )
        if header.iterations > self.iterations:
            raise FormatError(
                f"the file has {header.iterations} iterations, its model {self.iterations}",
                "it is damaged",
            )
        if iterations is not None and iterations < 1:
            raise SettingsError(f"{iterations} iterations cannot be decoded", "use 1 or more")
        many = len(file.chunks) if iterations is None else min(iterations, len(file.chunks))
        block = self.config.block
        grid = -(-header.height // block), -(-header.width // block)
        for number, (chunk, bits) in enumerate(
            zip(file.chunks[:many], self.config.bits, strict=False), 1
        ):
            if len(chunk) < coding.least_bytes(grid[0] * grid[1] * bits):
                raise FormatError(
                    f"iteration {number} has {len(chunk)} bytes, fewer than its size can take",
                    "it is damaged",
                )
        codes: list[Bits] = []
        for t in range(many):
            codes += coding.decode(
                self.context,
                file.chunks[t],
                t,
                t,
                grid,
                codes,
                max_bits=bit_limit(max_pixels, self.config),
            )
        image = self.image(codes, header.height, header.width)
        if header.grey:
            image = to_grey(image)
        return Decoded(image, header, many, file.complete, file.problem)

    def decode_many(
        self, files: Sequence[vzc.Vzc], *, iterations: int | None = None
    ) -> list[Pixels]:
        """The images of N small files of one size that have equally many iterations, decoded
        together.

        Args:
            files: as `vzc.unpack` gives them, written by this model.
            iterations: as in `decode`.

        Returns:
            uint8 (H, W, 3), or (H, W) where the source was grey, for each file: what `decode` gives
            for it.

        Raises:
            FormatError: one of the files cannot be what this model wrote; `decode` says which.
        """
        many = min(len(file.chunks) for file in files) if iterations is None else iterations
        return self.decode_prefixes(files, many, first=many)[0]

    def decode_prefixes(
        self, files: Sequence[vzc.Vzc], many: int, *, first: int = 1
    ) -> list[list[Pixels]]:
        """What `decode_many` gives for `first` iterations, and for each more up to `many`, in one
        pass; errors as there."""
        height, width = files[0].header.height, files[0].header.width
        if many > self.iterations:
            raise FormatError(
                f"{many} iterations are not what this model writes", "a file is damaged"
            )
        grid = -(-height // self.config.block), -(-width // self.config.block)
        codes: list[Bits] = []
        for t in range(many):
            codes += coding.decode_batch(
                self.context, [file.chunks[t] for file in files], t, t, grid, codes
            )
        return [
            [
                to_grey(image) if file.header.grey else image
                for file, image in zip(files, images[:, :height, :width], strict=True)
            ]
            for images in self.images_between(codes, first)
        ]

    def image(self, codes: Sequence[Bits], height: int, width: int) -> Pixels:
        """The image that bits decode to: uint8 (bits[t], rows, columns) of the first iterations to
        uint8 (H, W, 3)."""
        return self._tiling.image(codes, height, width)

    def images(self, codes: Sequence[Bits]) -> Pixels:
        """The images of N codes: uint8 (N, bits[t], rows, columns) to uint8 (N, rows * block,
        columns * block, 3)."""
        return self._tiling.images(codes)

    def images_between(self, codes: Sequence[Bits], first: int = 1) -> list[Pixels]:
        """The images of N codes after `first` iterations and after each later one, in one pass:
        what `images` gives, for each."""
        return self._tiling.images_between(codes, first)

    def decode_payloads(
        self,
        payloads: Sequence[bytes],
        height: int,
        width: int,
        iterations: int,
        *,
        stop: int | None = None,
    ) -> Pixels:
        """Images of payloads from a pack, all of one size and number of iterations: uint8 (N, H, W,
        3).

        Args:
            stop: how many iterations make the image; None: all of them.

        Raises:
            FormatError: a payload that this model cannot have written.
        """
        if not 1 <= iterations <= self.iterations:
            raise FormatError(
                f"{iterations} iterations are not what this model writes",
                "the pack is damaged, or of another model",
            )
        block = self.config.block
        grid = -(-height // block), -(-width // block)
        least = coding.least_bytes(grid[0] * grid[1] * sum(self.config.bits[:iterations]))
        if any(len(payload) < least for payload in payloads):
            raise FormatError(
                f"an image of {width}x{height} takes at least {least} bytes", "the pack is damaged"
            )
        codes = coding.decode_batch(self.context, list(payloads), 0, iterations - 1, grid, [])
        return self.images(codes[:stop])[:, :height, :width]

    # small things

    def _many(self, iterations: int | None) -> int:
        many = self.default_iterations if iterations is None else iterations
        if not 1 <= many <= self.iterations:
            raise SettingsError(
                f"{many} iterations: model {self.name} has 1 to {self.iterations}",
                "choose another `iterations`",
            )
        return many

    def _check_size(self, height: int, width: int) -> None:
        if self.native and (height, width) != (self.native, self.native):
            raise InputError(
                f"model {self.name} is for images of {self.native}x{self.native}, not"
                f" {width}x{height}",
                "use `model` photo for images of any size",
            )
