"""What an installation brings: few packages, extras that say their names, and a lock with hashes."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import setuptools  # noqa: F401  # before distutils, which it replaces
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lmfuzz
from helpers.shell import Result, Shell

ROOT = Path(__file__).parents[1]
WITH_TRANSFORMERS = {"tokenizers", "safetensors", "huggingface_hub"}
MODULES = {"PIL": "pillow", "jsonschema_specifications": "jsonschema", "referencing": "jsonschema"}
EXTRAS = ("PIL", "jsonschema", "regex", "h5py", "peft", "torchao", "pyarrow")  # modules of theirs
COMPILER = "torch._dynamo"  # seconds to import, and nothing compiles


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Requirement]]:
    """The requirements of setup.py, by extra; '' for those of every installation."""
    from distutils.core import run_setup

    monkeypatch.chdir(ROOT)
    made = run_setup("setup.py", stop_after="init")
    named = {"": made.install_requires, **made.extras_require}
    return {extra: [Requirement(line) for line in lines] for extra, lines in named.items()}


def test_an_installation_needs_at_most_twelve_packages(declared: dict[str, list[Requirement]]) -> None:
    assert len(declared[""]) <= 12
    assert declared.keys() >= {"image", "format", "torchao", "datasets"}
    tested = {str(requirement) for requirement in declared["test"]}
    assert {str(one) for extra in declared.keys() - {""} for one in declared[extra]} == tested


def test_every_package_that_is_imported_is_declared(declared: dict[str, list[Requirement]]) -> None:
    known = {requirement.name for extra in declared for requirement in declared[extra]} | WITH_TRANSFORMERS
    found = set[str]()
    for path in Path(lmfuzz.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    outside = found - sys.stdlib_module_names - {"lmfuzz"}
    assert {MODULES.get(name, name) for name in outside} <= known


def test_the_lock_pins_all_that_is_declared_with_hashes(declared: dict[str, list[Requirement]]) -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([^\s=#]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.M))
    assert len(pins) == len(re.findall(r"^\w", text, re.M))
    pins |= dict(re.findall(r"^(torch)==(\S+)$", (ROOT / "constraints-torch.txt").read_text("utf-8"), re.M))
    for requirement in {one for extra in declared.values() for one in extra}:
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"
    assert not pins.keys() & {"scikit-learn", "opencv-python-headless", "joblib"}


ALL_OF_THEM = """
import contextlib, io, json, sys
hidden, commands = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(hidden))
import lmfuzz.cli.main as m
said = []
for sys.argv[1:] in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            m.main()
        except SystemExit as done:
            said.append((int(done.code or 0), out.getvalue(), err.getvalue()))
print(json.dumps(said))
"""


def without(modules: Sequence[str], *commands: list[str]) -> list[Result]:
    """The command line where some modules are not installed, in a process of its own."""
    given = json.dumps([modules, commands])
    done = subprocess.run(
        [sys.executable, "-c", ALL_OF_THEM, given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [Result(*one) for one in json.loads(done.stdout)]


IMAGE = "images need Pillow: pip install 'lmfuzz[image]'"
FORMAT = "the objective format needs jsonschema and regex: pip install 'lmfuzz[format]'"


@pytest.mark.parametrize(
    ("modules", "sentences"),
    [
        (
            ["PIL", "pyarrow", "h5py", "regex"],
            {
                "image nan models:mnist/unsafe --count 2 --budget 9x": IMAGE,
                "image nan models:mnist/unsafe --budget 9x --seeds rows.npy": IMAGE,
                "fuzz --seeds any.parquet": "Parquet and Arrow files need pyarrow: pip install"
                " 'lmfuzz[datasets]'",
                "import any.h5 -o new": "files of Keras need h5py: pip install 'lmfuzz[keras]'",
                "fuzz --objective format:pattern=a+": FORMAT,
            },
        ),
        (["jsonschema"], {"fuzz --objective format:schema=any.json": FORMAT}),
    ],
)
def test_what_lacks_an_extra_names_it(sh: Shell, modules: list[str], sentences: dict[str, str]) -> None:
    for name in ("any.json", "any.h5"):
        Path(name).write_text("true", encoding="utf-8")
    Path("any.parquet").touch()
    Path("rows.npy").write_bytes(b"never read")
    for done, sentence in zip(without(modules, *map(str.split, sentences)), sentences.values(), strict=True):
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[-1].endswith(sentence)
        assert "Traceback" not in done.err


def test_an_audit_needs_no_extra(sh: Shell) -> None:
    commands = (
        ["fuzz", "--count", "5", "--budget", "300x", "-o", "audit"],
        ["show", "audit"],
        ["report", "audit", "-o", "audit.html"],
        ["list"],
    )
    for done in without((*EXTRAS, COMPILER), *commands):
        assert done.code in (0, 1), done.err
    assert Path("audit.html").exists()


def test_ci_runs_every_python_that_is_supported() -> None:
    supported = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert re.findall(r'"(3\.\d+)"', workflow) == supported
