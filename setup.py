"""Only here for the compiled part's tag: one wheel serves every CPython from 3.11 on (stable ABI). All else is in pyproject.toml."""

from setuptools import setup

setup(options={"bdist_wheel": {"py_limited_api": "cp311"}})
