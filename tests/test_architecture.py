"""The house's rules: who may import whom, what a light import must not load, and how large things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lmfuzz

ROOT = Path(lmfuzz.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]

# The rooms, lowest first: a module imports from its own room and from those before it.
ROOMS = (
    ("__init__", "errors", "types", "spaces", "tokens", "rng", "resources", "files"),
    ("protocols", "calls", "coding"),
    (
        "coverage",
        "objectives",
        "operators",
        "corpus",
        "executors",
        "budget",
        "typed",
        "bounds",
        "images",
        "recipes",
    ),
    ("findings", "shrink", "plugins", "seeds", "loop"),
    ("spec", "search", "tables", "store", "versions", "damage", "tally"),
    ("targets", "statistics"),
    ("assembly", "distil"),
    ("show",),
    ("pictures", "token_scan", "salvage"),
    ("campaign",),
    ("replay", "live", "report"),
    ("testing",),
    ("exports", "pytest_plugin"),
    ("sweep",),
    ("results", "watching"),
    ("options", "exits", "signals"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
HEAVY = ("torch", "transformers", "torchao", "nmslib", "tokenizers", "scipy")
ONLY_IN = {
    "torch": "targets/", "safetensors": "targets/", "transformers": "targets/",
    "torchao": "targets/", "nmslib": "coverage/nmslib_index.py",
    "click": ("cli.py", "options.py", "exits.py", "commands/"), "rich": ("live.py", "watching.py"),
    "sqlite3": ("store.py", "exits.py", "salvage.py", "damage.py"),
}  # fmt: skip


def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions, types only for checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                name if (ROOT.parent / f"{name.replace('.', '/')}.py").exists() else node.module
                for name in inside
            ]
    return found


def room(name: str) -> str:
    """The room of ``lmfuzz.search.walk`` is ``search``."""
    return [*name.split("."), "__init__"][1]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_imports_only_from_lower_rooms(name: str) -> None:
    own = room("lmfuzz." + name.removesuffix(".py").replace("/", "."))
    for imported in imports(ROOT / name):
        if imported.split(".")[0] == "lmfuzz":
            assert LEVELS[room(imported)] <= LEVELS[own], f"{name} imports {imported}"


def test_every_module_has_a_room() -> None:
    missing = {room("lmfuzz." + name.removesuffix(".py").replace("/", ".")) for name in NAMES} - LEVELS.keys()
    assert not missing, f"give {missing} a place in ROOMS"


@pytest.mark.parametrize("name", NAMES)
def test_heavy_packages_have_one_place_each(name: str) -> None:
    for imported in imports(ROOT / name):
        where = ONLY_IN.get(imported.split(".")[0])
        assert where is None or name.startswith(where), f"{name} imports {imported}, which belongs in {where}"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_are_short(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{name}: {node.name} has {length} lines"


def code(path: Path) -> int:
    """Lines that are neither blank, nor comments, nor docstrings."""
    source = path.read_text(encoding="utf-8")
    lines = {n for n, line in enumerate(source.split("\n"), 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_the_package_is_small() -> None:
    assert sum(map(code, FILES)) <= 14_000


@pytest.mark.parametrize(
    "code",
    [
        "import lmfuzz",
        "import lmfuzz.cli",
        "run('--help')",
        "run('--version')",
        "run('fuzz', '--help')",
        "run('tokens', '--help')",
        "run('list')",
        "run('list', 'objectives')",
        "run('fuzz', 'no/such/folder')",
    ],
)
def test_what_is_light_loads_nothing_heavy(code: str) -> None:
    script = f"""
import sys

def run(*arguments):
    from lmfuzz.cli import main
    sys.argv = ["lmfuzz", *arguments]
    try:
        main()
    except SystemExit:
        pass

{code}
print("loaded:", *sorted(sys.modules.keys() & set({HEAVY!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
