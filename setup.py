"""The compiled part; all else is in pyproject.toml. One wheel serves every CPython from 3.11 on
(stable ABI)."""

import sys

from setuptools import Extension, setup

NATIVE = "src/vizcomp/native"

setup(
    ext_modules=[
        Extension(
            "vizcomp._native",
            sources=[
                f"{NATIVE}/{name}.c"
                for name in (
                    "module",
                    "jpeg_decode",
                    "jpeg_encode",
                    "jpeg_blocks",
                    "bits",
                    "lstm",
                    "convolve",
                    "pictures",
                )
            ],
            depends=[f"{NATIVE}/native.h", f"{NATIVE}/x86.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            libraries=[] if sys.platform == "win32" else ["m"],
            extra_compile_args=["/O2"] if sys.platform == "win32" else ["-O3", "-std=c99", "-g0"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
