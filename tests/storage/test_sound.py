"""Values of a readable database that make no sense are damage, whoever reads them."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from helpers.image_models import MODELS
from helpers.shell import Shell

OLD = Path(__file__).parents[1] / "campaigns/0.3.0/lstm"
STATES = {  # a path in the state -> a value that makes no sense
    ("tally", "rows"): "x", ("tally", "mutants"): [1], ("tally", "mutants", "__array__"): ["<i8", [0], ""],
    ("executions",): 2**70, ("seconds",): float("inf"), ("findings", "kept"): {"a": "b"}, ("panel",): 3,
    ("streams",): {"search": 1}, ("search",): [],
}  # fmt: skip
META = {
    "calibration": {"radius": "x"}, "identity": 2**40, "operators": [1], "seeds": -7, "spec": [], "space": {},
    "targets": "x",
}  # fmt: skip
COLUMNS = {
    "findings": {
        "execution": "x",
        "distance": float("inf"),
        "runs": "[]",
        "objective": b"\xff",
        "span": "[1]",
    },
    "steps": {"corpus": b"\xff", "archive": 9e99, "novelty": float("inf")},
}


@pytest.fixture
def old(sh: Shell) -> Path:
    return Path(shutil.copytree(OLD, "c"))


def put(directory: Path, query: str, *values: object) -> None:
    with closing(sqlite3.connect(directory / "campaign.db")) as db, db:
        db.execute(query, values)


def damaged(sh: Shell, *command: str) -> None:
    done = sh(*command)
    assert done.code == 2, (command, done.err)
    assert done.err.count("\n") == 1, done.err


@pytest.mark.parametrize("path", STATES, ids="/".join)
def test_a_state_that_makes_no_sense(sh: Shell, old: Path, path: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(old / "campaign.db")) as db:
        state = json.loads(db.execute("SELECT value FROM state").fetchone()[0])
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = STATES[path]
    put(old, "UPDATE state SET value = ?", json.dumps(state))
    damaged(sh, "resume", "c", "--budget", "2200x")


@pytest.mark.parametrize("key", META)
@pytest.mark.parametrize("command", ["report", "show", "resume"])
def test_an_entry_that_makes_no_sense(sh: Shell, old: Path, key: str, command: str) -> None:
    put(old, "UPDATE meta SET value = ? WHERE key = ?", json.dumps(META[key]), key)
    damaged(sh, command, "c")


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in COLUMNS.items() for c in columns])
def test_a_column_that_makes_no_sense(sh: Shell, old: Path, table: str, column: str) -> None:
    put(old, f"UPDATE {table} SET {column} = ?", COLUMNS[table][column])
    damaged(sh, "report", "c")
    if table == "findings":
        damaged(sh, "export", "c", "--format", "jsonl")
        damaged(sh, "show", "c", "1")


def test_json_that_never_ends_is_damage(sh: Shell, old: Path) -> None:
    put(old, "UPDATE meta SET value = ? WHERE key = 'calibration'", "[" * 99999)
    damaged(sh, "show", "c")


SEARCHES = {
    "directed": (), "walk": (), "each": ("--per-seed", "100"),
    "triggerfinder": (), "diffchaser": (), "boundary": (),
}  # fmt: skip
WRONG = ("text", -5, 2**60, float("nan"), {}, [None])


def places(state: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values in a state, of the first of several in a list."""
    inside = dict(enumerate(state[:1])) if isinstance(state, list) else state
    if not isinstance(inside, dict) or "__array__" in inside:
        return [path]
    return [path, *(place for key, one in inside.items() for place in places(one, (*path, key)))]


@pytest.mark.parametrize("search", SEARCHES)
def test_whatever_a_search_resumes_from_there_is_no_traceback(sh: Shell, search: str) -> None:
    if search in ("triggerfinder", "diffchaser", "boundary"):
        Path("images.py").write_text(MODELS)
        name = search + ":population=8" * (search == "diffchaser")
        more = ("--search", name, "--per-seed", "50", "--count", "4", "--budget", "60x")
        sh("image", "diff", "images.py:few", "--twin", "int8", *more, "-o", "c")
    else:
        name = "directed" if search == "each" else search
        sh.fuzz("--search", name, *SEARCHES[search], "-o", "c", "--batch", "8", budget="100x")
    with closing(sqlite3.connect("c/campaign.db")) as db:
        text = db.execute("SELECT value FROM state").fetchone()[0]
    places_of = {key: places(json.loads(text)[key]) for key in ("search", "findings", "panel", "visits")}
    for key, paths in places_of.items():
        for i, path in enumerate(paths):
            state = json.loads(text)
            place = state
            for step in (*([key] if path else []), *path[:-1]):
                place = place[step]
            place[path[-1] if path else key] = WRONG[i % len(WRONG)]
            shutil.copytree("c", "d")
            put(Path("d"), "UPDATE state SET value = ?", json.dumps(state))
            done = sh("resume", "d", "--budget", "140x")
            assert done.code in (0, 1, 2), (key, path, done.err)
            assert "Traceback" not in done.err, (key, path)
            shutil.rmtree("d")


def test_outcomes_that_are_not_those_of_the_seeds_are_damage(sh: Shell) -> None:
    Path("images.py").write_text(MODELS)
    more = ("--search", "triggerfinder", "--per-seed", "50", "--count", "4", "--budget", "60x")
    sh("image", "diff", "images.py:few", "--twin", "int8", *more, "-o", "c")
    query = """UPDATE state SET value = json_set(value, '$.search.trials.queries', '[1]')"""
    put(Path("c"), query)
    done = sh("resume", "c", "--budget", "900x")
    assert (done.code, "c/campaign.db is damaged" in done.err) == (2, True), done
