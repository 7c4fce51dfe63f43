"""Names to objects, built in, installed, in modules and in files, and their parameters."""

import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmfuzz.coverage import FEATURES
from lmfuzz.errors import UsageError
from lmfuzz.inputs import bundled
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.operators import OPERATORS
from lmfuzz.plugins.grammar import parse
from lmfuzz.plugins.modules import resolve
from lmfuzz.plugins.registry import Entry, Kind
from lmfuzz.search import SEARCHES
from lmfuzz.targets import TARGETS
from lmfuzz.targets.twins.recipes import RECIPES


class Fake:
    """An objective for tests.

    With more to say.
    """

    def __init__(self, times: int = 4, words: Sequence[str] = (), fold: bool = True) -> None:
        if times < 1:
            raise ValueError("times must be\nat least 1")
        if times > 99:
            raise UsageError("times is more than 99")
        if times == 13:
            raise RuntimeError("unlucky")
        self.times, self.words, self.fold = times, list(words), fold

    def __call__(self, batch: object, trace: object) -> None: ...


class Strict:
    def __init__(self, pattern: str, file: str = "") -> None:
        self.pattern, self.file = pattern, file

    def __call__(self, batch: object, trace: object) -> None: ...


class Both:
    """Made of others."""

    def __init__(self, parts: Sequence[object], least: int = 1) -> None:
        self.parts, self.least = parts, least

    def __call__(self, batch: object, trace: object) -> None: ...


class Loose:
    def __init__(self, **anything: object) -> None:
        self.anything = anything

    def __call__(self, batch: object, trace: object) -> None: ...


class Walk:
    """A search for tests."""

    focus: Sequence[int] = ()

    def __init__(self, setting: object, steps: int = 3) -> None:
        self.setting, self.steps = setting, steps

    def ask(self, size: int) -> None: ...
    def tell(self) -> None: ...
    def state(self) -> None: ...
    def restore(self) -> None: ...


class Sleeper:
    focus: Sequence[int] = ()

    def __init__(self, setting: object) -> None: ...
    def ask(self, size: int) -> None: ...
    def tell(self) -> None: ...
    def state(self) -> None: ...


def shout(batch: object, trace: object, loud: int = 2) -> tuple[object, object, int]:
    """Detect directly."""
    return batch, trace, loud


def louder(text: str, least: int = 2) -> bool:
    """Detect in the text alone."""
    return text.count("!") >= least


def shouting(least: int) -> object:
    """Make a detector."""
    return Fake(least)


KINDS = (OBJECTIVES, OPERATORS, SEARCHES, FEATURES, TARGETS, RECIPES)
FAKES = {
    "fake": "Fake", "strict": "Strict", "both": "Both", "loose": "Loose", "shout": "shout",
    "louder": "louder", "shouting": "shouting",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, fakes in ((OBJECTIVES, FAKES), (SEARCHES, {"stroll": "Walk", "sleeper": "Sleeper"})):
        monkeypatch.setitem(sys.modules, f"{kind.package}.fakes", sys.modules[__name__])
        for name, attribute in fakes.items():
            monkeypatch.setitem(kind.table, name, f"fakes:{attribute}")


def made(text: str) -> Any:
    return OBJECTIVES.build(parse(text))


def refused(text: str, kind: Kind = OBJECTIVES) -> str:
    with pytest.raises(UsageError) as error:
        kind.build(parse(text))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_parameters_are_converted_by_the_annotations_of_the_constructor() -> None:
    fake = made('fake:times=7,words=["a", "b"],fold=no')
    assert (fake.times, fake.words, fake.fold) == (7, ["a", "b"], False)
    assert made("fake").times == 4
    assert made("fake:9,fold=false").times == 9
    assert made("strict:pattern=12").pattern == "12"
    assert made('loose:any="x",thing=[1]').anything == {"any": "x", "thing": [1]}


def test_wrong_parameters_are_told_from_right_ones() -> None:
    assert refused("fake:tims=3") == (
        "fake has no parameter 'tims'; fake takes times, words, fold; did you mean 'times'?"
    )
    assert refused("fake:times=four") == 'fake: times must be a whole number, not "four"'
    assert refused("strict") == "strict needs pattern (text): strict:pattern=..."
    assert refused('strict:"a",pattern=b') == "strict: pattern is given twice, first without its name"
    assert refused("both(fake):parts=[]").startswith("both has no parameter 'parts'; ")


def test_what_the_constructor_says_is_passed_on() -> None:
    assert refused("fake:times=0") == "fake: times must be at least 1"
    assert refused("fake:times=100") == "times is more than 99"
    with pytest.raises(RuntimeError, match="unlucky"):  # a bug in a built-in is no user's mistake
        made("fake:times=13")
    theirs = refused(f"{Fake.__module__}:Fake:times=13")
    assert "RuntimeError: unlucky" in theirs
    assert Path(__file__).name in theirs


def test_parts_are_built_and_passed_on() -> None:
    tree = made("both(fake:times=5, both(strict:pattern=x)):least=2")
    assert tree.least == 2
    assert tree.parts[0].times == 5
    assert tree.parts[1].parts[0].pattern == "x"
    assert "leave out the parentheses" in refused("fake(strict)")
    assert "name them in parentheses, as in all(echo, entropy)" in refused("both")
    assert refused("both(fake, fakee)").startswith("unknown objective 'fakee'; did you mean 'fake'?")


def test_a_function_of_two_arguments_is_the_objective_itself() -> None:
    assert made("shout") is shout
    louder = made("shout:loud=5")
    assert louder("batch", "trace") == ("batch", "trace", 5)
    assert louder.__name__ == "shout"
    assert made("shout:6")("b", "t")[2] == 6
    assert "shout takes loud" in refused("shout:batch=1")


def test_a_function_of_one_argument_is_the_objective_unless_it_is_given_that() -> None:
    assert made("louder") is louder
    assert made("louder:least=1")("!")
    assert made("shouting:least=5").times == 5
    assert made("shouting:5").times == 5
    assert made("shouting") is shouting
    assert refused("louder:lest=1").startswith("louder has no parameter 'lest'; louder takes least; did you")


def test_searches_get_their_setting_and_must_keep_their_promises() -> None:
    setting = object()
    search = SEARCHES.build(parse("stroll:steps=5"), setting)
    assert (search.setting, search.steps) == (setting, 5)
    with pytest.raises(UsageError, match=r"stroll takes steps$"):
        SEARCHES.build(parse("stroll:setting=5"), setting)
    with pytest.raises(UsageError, match="which lacks what every search must have: restore"):
        SEARCHES.build(parse("sleeper"), setting)


def test_text_that_starts_with_corpora_is_the_path_of_a_bundled_file() -> None:
    call = parse("both(strict:pattern=x,file=corpora:words/blacklist.txt)").map_texts(bundled.expand)
    path = Path(OBJECTIVES.build(call).parts[0].file)
    assert path.is_file()
    assert path.name == "blacklist.txt"
    with pytest.raises(UsageError) as error:
        parse("strict:pattern=x,file=corpora:words/blaklist.txt").map_texts(bundled.expand)
    assert str(error.value) == (
        "the bundled corpora have no 'words/blaklist.txt'; did you mean 'words/blacklist.txt'?"
    )
    with pytest.raises(UsageError, match="have no"):
        bundled.expand("corpora:../pyproject.toml")
    assert bundled.resource("a/b.txt") == Path("a/b.txt")
    assert bundled.expand("a corpora:x") == "a corpora:x"


def test_unknown_names_are_told_from_known_ones() -> None:
    assert refused("repetitio") == (
        "unknown objective 'repetitio'; did you mean 'repetition'? (`lmfuzz list objectives` shows all)"
    )
    assert refused("zzzzzz", SEARCHES) == "unknown search 'zzzzzz' (`lmfuzz list searches` shows all)"
    assert refused("fake:murder") == (
        "fake has no parameter 'murder'; `lmfuzz list objectives` shows what it has,"
        ' and quotes make it a value: fake:"murder"'
    )
    assert refused("my.py") == "my.py is a file; say which objective in it: my.py:Class"


LEAST, MORE, LESS = "greater than or equal to", "greater than", "less than"


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (OBJECTIVES, "repetition:times=1", f"times must be {LEAST} 2, not 1"),
        (OBJECTIVES, "repetition:period=-1", f"period must be {LEAST} 0, not -1"),
        (OBJECTIVES, "repetition:rounds=1", f"rounds must be {LEAST} 2, not 1"),
        (OBJECTIVES, "memorised:folder=x,tokens=1", f"tokens must be {LEAST} 2, not 1"),
        (OBJECTIVES, "never_ends:below=1", f"below must be {LESS} 1, not 1"),
        (OBJECTIVES, "never_ends:below=0", f"below must be {MORE} 0, not 0"),
        (OBJECTIVES, "nonfinite:overflow=1", f"overflow must be {MORE} 1, not 1"),
        (OBJECTIVES, "nonfinite:overflow=inf", 'overflow must be a finite number, not "inf"'),
        (OBJECTIVES, "entropy:low=-1", f"low must be {LEAST} 0, not -1"),
        (OBJECTIVES, "entropy:window=0", f"window must be {LEAST} 1, not 0"),
        (OBJECTIVES, "parting:gap=0", f"gap must be {MORE} 0, not 0"),
        (OBJECTIVES, "divergence:threshold=nan", 'threshold must be a finite number, not "nan"'),
        (OPERATORS, "repeat:longest=0", f"longest must be {LEAST} 1, not 0"),
        (OPERATORS, "repeat:times=0", f"times must be {LEAST} 1, not 0"),
        (OPERATORS, "case:0", f"longest must be {LEAST} 1, not 0"),
        (OPERATORS, "neighbour:0", f"count must be {LEAST} 1, not 0"),
        (OPERATORS, "respell:0", f"longest must be {LEAST} 1, not 0"),
        (OPERATORS, "tail:temperature=0", f"temperature must be {MORE} 0, not 0"),
        (OPERATORS, "tail:share=1.5", f"share must be {LESS} or equal to 1, not 1.5"),
        (OPERATORS, "havoc:64", f"depth must be {LESS} or equal to 10, not 64"),
        (OPERATORS, "noise:0", f"sigma must be {MORE} 0, not 0"),
        (OPERATORS, "gaussian_noise:-1", f"variance must be {MORE} 0, not -1"),
        (OPERATORS, "pixels:0", f"most must be {LEAST} 1, not 0"),
        (OPERATORS, "mean_blur:1", f"largest must be {LEAST} 2, not 1"),
        (OPERATORS, "contrast:1", f"most must be {MORE} 1, not 1"),
        (OPERATORS, "move:-1", f"most must be {LEAST} 1, not -1"),
        (OPERATORS, "rotate:200", f"most must be {LESS} or equal to 180, not 200"),
        (SEARCHES, "directed:explore=2", f"explore must be {LESS} or equal to 1, not 2"),
        (SEARCHES, "directed:patience=0", f"patience must be {LEAST} 1, not 0"),
        (SEARCHES, "boundary:near=0", f"near must be {LEAST} 1, not 0"),
        (SEARCHES, "diffchaser:rate=2", f"rate must be {LESS} or equal to 1, not 2"),
        (FEATURES, "hidden_last:-1", f"project must be {LEAST} 0, not -1"),
        (FEATURES, "trajectory:0", f"clusters must be {LEAST} 1, not 0"),
        (RECIPES, "round:1", f"bits must be {LEAST} 2, not 1"),
    ],
)
def test_values_out_of_bounds_are_refused_before_anything_is_made(
    kind: Kind, text: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as error:
        kind.check(parse(text))
    assert str(error.value) == f"{text.partition(':')[0]}: {sentence}"


# ------------------------------------------------------------------------------------ modules and files

DETECTOR = '''
from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Thing

@dataclass(frozen=True)
class Detector:
    """Detects."""
    threshold: int = 3
    names: Sequence[str] = ()
    def __call__(self, batch, trace): return self.threshold

class Typed:
    def __init__(self, thing: Thing = None, threshold: int = 1): self.thing = thing
    def __call__(self, batch, trace): return 0

level = 5
'''


def test_a_class_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my detectors.py"
    file.write_text(DETECTOR, encoding="utf-8")
    detector = made(f"{file}:Detector:threshold=8,names=[1]".replace("[1]", '["a"]'))
    assert (detector.threshold, detector.names) == (8, ["a"])
    assert refused(f"{file}:Detector:threshold=x") == (
        f'{file}:Detector: threshold must be a whole number, not "x"'
    )
    again = resolve(f"{file}:Detector")
    assert type(detector) is again  # one file is one module
    assert importlib.import_module(again.__module__).Detector is again
    assert made(f"{file}:Typed:thing=x").thing == "x"
    assert refused(f"{file}:Detektor") == f"{file} has no 'Detektor'; did you mean 'Detector'?"
    assert refused(f"{file}:level") == f"{file}:level is 5; the objective must be a class or a function"


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        ("x = 1\nx.y = 2\n", "AttributeError: 'int' object has no attribute 'y' ({}, line 2)"),
        ("import ast\n\nast.literal_eval([])\n", "ValueError: malformed node or string: [] ({}, line 3)"),
        ("x = 1\nif x\n", "SyntaxError: expected ':' ({}, line 2)"),
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all' ({}, line 1)"),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({}, line 1)"),
    ],
)  # fmt: skip
def test_errors_in_a_file_are_told_with_their_line(tmp_path: Path, text: str, raised: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text, encoding="utf-8")
    modules = set(sys.modules)
    assert refused(f"{file}:Detector") == f"{file} cannot be imported: {raised.format(file)}"
    assert not {name for name in sys.modules if name not in modules and "broken" in name}


def test_files_of_one_name_are_different_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"WHERE = {folder!r}\n", encoding="utf-8")
    assert [resolve(f"{tmp_path}/{folder}/same.py:WHERE") for folder in "ab"] == ["a", "b"]


def test_missing_files_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(f"{tmp_path}/none.py:A") == f"there is no file {tmp_path}/none.py"
    assert refused("json.nothing:A").startswith("there is no module 'json.nothing'")
    assert refused("nowhere_at_all:A").startswith("there is no module 'nowhere_at_all'")
    (tmp_path / "half_there.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert refused("half_there:A") == (
        "module half_there cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"
        f" ({tmp_path}/half_there.py, line 1)"
    )
    with pytest.raises(UsageError, match="neither module:name nor"):
        resolve("json")
    assert resolve("json:decoder.JSONDecoder").__name__ == "JSONDecoder"


# --------------------------------------------------------------------------------- installed plug-ins


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path with sound and broken plug-ins, and one that takes a built-in's name."""
    info = tmp_path / "strangers-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.2\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[lmfuzz.objectives]\nours = strangers:Ours\nlost = strangers:Lost\nfell = strangers_fell:Fell\n"
        "number = strangers:NUMBER\nfake = strangers:Ours\n"
        "[lmfuzz.targets]\nmodel = strangers_fell:model\n",
        encoding="utf-8",
    )
    (tmp_path / "strangers.py").write_text(
        'NUMBER = 5\nclass Ours:\n    """Theirs."""\n'
        "    def __init__(self, depth: int, wide: float = 0.5): self.depth = depth\n"
        "    def __call__(self, batch, trace): return 0\n",
        encoding="utf-8",
    )
    (tmp_path / "strangers_fell.py").write_text("import sys\n1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("strangers", "strangers_fell"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_an_installed_plug_in_is_found_by_its_name() -> None:
    assert made("ours:depth=3").depth == 3
    assert type(made("fake")) is Fake  # a built-in name cannot be taken over
    assert OBJECTIVES.names().count("fake") == 1
    assert refused("our:depth=3").startswith("unknown objective 'our'; did you mean 'ours'?")
    assert refused("ours:deep").startswith("ours has no parameter 'deep'")


def test_a_broken_plug_in_breaks_nothing_else(installed: Path) -> None:
    assert refused("fell") == (
        "the plug-in fell of strangers 1.2 cannot be loaded: ZeroDivisionError: division by zero"
        f" ({installed}/strangers_fell.py, line 2)"
    )
    assert "has no attribute 'Lost'" in refused("lost")
    assert refused("number").startswith("number is 5; the objective must be")
    entries = {entry.name: entry for entry in described(OBJECTIVES)}
    assert entries["ours"] == Entry("ours", "Theirs.", ("depth (whole number)", "wide (number, default 0.5)"))
    for name in ("fell", "lost", "number"):
        assert entries[name].line.startswith("broken: ")
    assert made("ours:depth=1").depth == 1


@pytest.mark.usefixtures("installed")
def test_targets_are_described_without_being_imported() -> None:
    assert described(TARGETS) == [Entry("model", "strangers_fell:model, from strangers 1.2")]
    assert "strangers_fell" not in sys.modules


def described(kind: Kind) -> list[Entry]:
    """What describe says, of the fakes and of what is installed."""
    return replace(kind, table={name: at for name, at in kind.table.items() if "fakes:" in at}).describe()


def test_describing() -> None:
    entries = {entry.name: entry for entry in described(OBJECTIVES)}
    assert entries["fake"] == Entry(
        "fake",
        "An objective for tests.",
        (
            "times (whole number, default 4)",
            "words (list of texts, default [])",
            "fold (true or false, default true)",
        ),
    )
    assert entries["both"].parameters == ("least (whole number, default 1)",)
    assert entries["shout"].parameters == ("loud (whole number, default 2)",)
    assert entries["loose"].parameters == ()
    assert described(SEARCHES)[0].parameters == ("steps (whole number, default 3)",)


# --------------------------------------------------------------------------------- the contract of all


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in kind.table],
    ids=lambda v: getattr(v, "noun", v),
)
def test_every_built_in_is_there_and_describes_itself(kind: Kind, name: str) -> None:
    assert callable(kind.find(name)), "a class, or a function that makes one"
    entry = kind.entry(name)
    assert entry.line
    assert not [parameter for parameter in entry.parameters if "(anything" in parameter]


@pytest.mark.parametrize(
    ("does", "without"),
    [
        (
            "from lmfuzz.objectives import OBJECTIVES; OBJECTIVES.names()",
            {"lmfuzz.objectives.phrases", "torch"},
        ),
        (
            "from lmfuzz.objectives import OBJECTIVES; OBJECTIVES.find('regex')",
            {"lmfuzz.objectives.phrases", "lmfuzz.search", "torch"},
        ),
        (
            "from lmfuzz.cli.listing import list_; list_.callback(None)",
            {"torch", "nmslib", "scipy", "transformers"},
        ),
        ("from lmfuzz.targets.twins import recipes; recipes.read('int8:tensor')", {"torch"}),
    ],
)
def test_no_more_is_imported_than_asked_for(does: str, without: set[str]) -> None:
    code = f"import sys; {does}; sys.exit(str({without} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
