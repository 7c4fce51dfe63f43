"""How lmfuzz is installed; what tools need to know stands in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lmfuzz" / "__init__.py").read_text(encoding="utf-8"))
README = ROOT / "README.md"
EXTRAS = {
    "image": ["pillow>=10.1"],
    "format": ["jsonschema>=4.18", "regex>=2023"],
    "datasets": ["pyarrow>=14"],
    "pandas": ["pandas>=2"],
    "keras": ["h5py>=3.10"],
    "peft": ["peft>=0.18"],  # before, it did not know transformers 5
    "torchao": ["torchao>=0.18"],  # before, int8 was another kind of tensor
}
TEST = ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6", "ruff>=0.9", "mypy>=1.13"]

assert VERSION is not None
setup(
    name="lmfuzz",
    version=VERSION[1],
    description="A coverage-guided behaviour fuzzer for language models",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Software Development :: Testing",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["lmfuzz", "lmfuzz.*"]), "lmfuzz.corpora"],
    package_dir={"lmfuzz.corpora": "corpora"},
    package_data={
        "lmfuzz": ["py.typed", "*.pyi", "models/*/*.*", "models/*/*/*", "report/*.*", "exports/*.txt"],
        "lmfuzz.corpora": ["*.txt", "*.md", "*/*.txt", "*/*.dict", "examples/*.*", "presets/*", "*/*.gz"],
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=5,<6",  # brings tokenizers, safetensors and huggingface_hub as it needs them
        "numpy>=2",
        "scipy>=1.13",
        "nmslib>=2.1.2",
        "click>=8.1",
        "filelock>=3.14",
        "pydantic>=2.8",
        "rich>=13",
        "jinja2>=3.1",
        "rapidfuzz>=3",
        "tomli_w>=1.0",
    ],
    extras_require={**EXTRAS, "test": [*TEST, *(package for extra in EXTRAS.values() for package in extra)]},
    entry_points={
        "console_scripts": ["lmfuzz = lmfuzz.cli.main:main"],
        "pytest11": ["lmfuzz = lmfuzz.pytest_plugin"],
    },
)
