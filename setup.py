"""Puts `conf/` into an installed package as `distdiff.conf`, which pyproject.toml alone cannot say. The rest is there."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["distdiff*"]), "distdiff.conf"],
    package_dir={"distdiff.conf": "conf"},
)
