"""The house's rules: who may import whom, what a light import must not load, and how large things may be."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import lmfuzz

ROOT = Path(lmfuzz.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]

HEAVY = ("torch", "transformers", "torchao", "nmslib", "tokenizers", "scipy")
ONLY_IN = {
    "torch": "targets/", "safetensors": "targets/", "transformers": "targets/",
    "torchao": "targets/", "nmslib": "coverage/nmslib_index.py",
    "click": "cli/", "rich": ("cli/", "api/progress.py"), "pandas": "api/result.py",
    "pyarrow": "inputs/arrow.py",
    "sqlite3": ("storage/", "cli/exit_codes.py"),
    "filelock": ("storage/", "cli/sweep_campaign.py"), "fcntl": (),
}  # fmt: skip


def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions, those for type checkers, too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
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


def module(name: str) -> str:
    return "lmfuzz." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def layers(graph: dict[str, set[str]]) -> list[list[str]]:
    """What imports nothing, then what imports only that, and so on; a cycle is an error."""
    found, done = [], set[str]()
    while len(done) < len(graph):
        free = sorted(name for name, wants in graph.items() if name not in done and wants <= done)
        assert free, f"a cycle of imports is among {sorted(graph.keys() - done)}"
        found.append(free)
        done |= {*free}
    return found


def test_no_module_imports_itself_through_others() -> None:
    modules = {module(name): name for name in NAMES}
    layers({
        one: {other for other in imports(ROOT / name) if other in modules} - {one}
        for one, name in modules.items()
    })  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_heavy_packages_have_one_place_each(name: str) -> None:
    for imported in imports(ROOT / name):
        where = ONLY_IN.get(imported.split(".")[0])
        assert where is None or name.startswith(where), f"{name} imports {imported}, which belongs in {where}"


@pytest.mark.parametrize("name", NAMES)
def test_campaigns_are_read_through_their_record(name: str) -> None:
    """What a stored campaign says has names, not keys, but for who writes it and who reads it."""
    readers = ("analysis/", "report/", "exports/", "cli/", "campaign/build.py", "storage/store.py")
    if name.startswith(readers) and name != "cli/console.py":  # which has a meta of click's
        text = (ROOT / name).read_text(encoding="utf-8")
        written = re.sub(r'described\(meta\["space"\]\)|meta\["spec"\]\["system"\]', "", text)
        assert not re.search(r"\b(meta|state)\[|\.meta\b", written)


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_are_short(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{name}: {node.name} has {length} lines"


def code(path: Path) -> int:
    """Lines that are neither blank, nor comments, nor docstrings, those of attributes included."""
    source = path.read_text(encoding="utf-8")
    lines = {n for n, line in enumerate(source.split("\n"), 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def folder(name: str) -> str:
    """The part of the package that a module belongs to: a folder, or a file at the top."""
    return ".".join(name.split(".")[:2])


def test_folders_stand_in_few_levels() -> None:
    graph: dict[str, set[str]] = {}
    for name in NAMES:
        own = folder(module(name))
        inside = {folder(other) for other in imports(ROOT / name) if other.split(".")[0] == "lmfuzz"}
        graph.setdefault(own, set()).update(inside - {own, "lmfuzz"})
    found = layers(graph)
    assert len(found) <= 10, found


def test_folders_hold_few_files() -> None:
    files = Counter(str(path.parent.relative_to(ROOT)) for path in FILES)
    assert files["."] <= 13
    assert max(files.values()) <= 14, files.most_common(3)


def test_the_package_is_small() -> None:
    # 12,500; then, for models and files as people have them: masks of windows and chunks 110, modules called
    # in every way and run by states or caches 720, import of checkpoints 380, what else folders hold
    # 210, seeds of all formats 290, chat templates and every character that a tokenizer reads 190. And 300
    # for runs and files that go wrong: a sentence and the right exit code instead of a traceback.
    assert sum(map(code, FILES)) <= 15_600


@pytest.mark.parametrize(
    "code",
    [
        "import lmfuzz",
        "import lmfuzz.cli.main",
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
    from lmfuzz.cli.main import main
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


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("plugins/")])
def test_the_plug_in_machinery_knows_nothing_of_what_it_finds(name: str) -> None:
    own = {one for one in imports(ROOT / name) if one.partition(".")[0] == "lmfuzz"}
    assert not [one for one in own if not one.startswith(("lmfuzz.errors", "lmfuzz.plugins"))]
