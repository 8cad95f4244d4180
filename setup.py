"""Packaging. What the tools are told stands in pyproject.toml and tox.ini."""

from pathlib import Path

from setuptools import find_packages, setup

readme = Path(__file__).parent / "README.md"

cli = ["click>=8.0", "rich>=12"]
test = [
    *cli,
    "pytest>=8.0",
    "pytest-tornado>=0.8.1",
    "setuptools<80.9",  # pytest-tornado imports pkg_resources: gone in 82, noisy from 80.9 on
    "hypothesis>=6.100",
    "aiokatcp==2.3.0",  # a real server to talk to
]
docs = [*cli, "sphinx>=7.0", "furo", "matplotlib>=3.6"]
bench = ["aiokatcp==2.3.0"]

setup(
    name="katcp_tornado",
    version="0.1.0",
    description="A KATCP client for Tornado",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author="The katcp_tornado authors",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.9",
    # katcp-codec is bounded from above because katcp_tornado/codec.py looks inside it.
    install_requires=["tornado>=6.3", "katcp-codec>=0.2,<0.3"],
    extras_require={"cli": cli, "test": test, "docs": docs, "bench": bench},
    packages=find_packages(include=["katcp_tornado", "katcp_tornado.*"]),
    package_data={"katcp_tornado": ["py.typed"]},
    zip_safe=False,
    entry_points={"console_scripts": ["katcp-tornado=katcp_tornado.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Scientific/Engineering :: Astronomy",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
)
