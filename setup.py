"""Only what pyproject.toml cannot say: the cffi module."""

from setuptools import setup

setup(cffi_modules=["native/build_core.py:ffibuilder"])
