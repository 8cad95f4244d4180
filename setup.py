"""For tools that ask for it; everything stands in pyproject.toml."""

from setuptools import setup

setup()
