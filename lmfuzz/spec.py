"""What fixes a campaign: its spec, from a file and the command line, and its campaign.toml."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import lmfuzz
from lmfuzz import files
from lmfuzz.budget import Budget
from lmfuzz.errors import UsageError, nearest
from lmfuzz.inputs.reading import read_text
from lmfuzz.plugins.coerce import complaint
from lmfuzz.plugins.grammar import parse

_RECORDS = ("made_with", "target")  # tables of a campaign.toml that say what it ran on
_LARGEST = 2**63 - 1
_LONGEST = 100_000
_WIDEST = {"min_length": 1, "max_length": _LONGEST}  # so that one of them can be checked alone


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command line and the documentation say of a field of Spec, beside its description.

    group: the heading it stands under. option: how it is typed, ``--like-its-name`` where that is not said.
    metavar: what stands for its value. unset: what happens when it is not given, where its default does not
    say so. rows: the only kind of model that it is for, "text" or "box"; '' for both.
    """

    group: str
    option: str
    metavar: str
    unset: str
    rows: Literal["", "text", "box"]


def _setting(
    default: Any, group: str, metavar: str = "", *, unset: str = "", option: str = "",
    rows: Literal["", "text", "box"] = "", **checks: Any,
) -> Any:  # fmt: skip
    """A field of Spec, described by the text below it."""
    field = Field(default=default, **checks)
    field.metadata.append(Setting(group, option, metavar, unset, rows))
    return field


Own = Mapping[str, Any]  # objects that were given from Python, under what a spec calls them
NOTHING: Own = {}
PYTHON = "python:"  # begins what a spec calls such an object
TEST, FIND, SEARCH, RUN = "What to test", "What to look for", "How to search", "How the model runs"
_OBJECTIVES = ["repetition", "phrases:file=corpora:words/blacklist.txt"]


class Spec(BaseModel):
    """Everything that fixes a campaign; two campaigns with equal specs do the same.

    Command-line options, keys of campaign.toml and arguments of ``lmfuzz.fuzz`` are its fields. Paths are
    as given, relative to the working directory; ``corpora:`` in front means bundled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    model: str = _setting("", TEST, "MODEL", unset="the bundled model", option="MODEL")
    """The model to test: a checkpoint folder, a Hugging Face folder or name, or file.py:factory."""
    twin: str = _setting("", TEST, "TWIN", unset="none", option="TWIN")
    """The model to compare it with, or a recipe that compresses it, such as int8."""
    seeds: list[str] = _setting([], TEST, "NAME|FILE|DIR", unset="bundled ones")
    """Inputs to start from: files and folders of prompts or images, the name of a data set (digits, mnist,
    mnist:train, cifar10), or a prompt itself (text:PROMPT).
    """
    count: int | None = _setting(None, TEST, "N", unset="all of them", ge=1)
    """The number of seeds to take."""
    min_length: int = _setting(1, TEST, "N", rows="text", ge=1)
    """The smallest number of symbols that a prompt may have."""
    max_length: int = _setting(64, TEST, "N", rows="text", ge=1, le=_LONGEST)
    """The largest number of symbols that a prompt may have."""
    unknown: Literal["error", "drop"] = _setting("error", TEST, rows="text")
    """What to do with characters of seeds that the model does not know: stop with an error, or drop them."""
    level: Literal["char", "token"] = _setting("char", TEST, rows="text")
    """What mutations change in the prompts of a Hugging Face model."""
    system: str = _setting("", TEST, "TEXT", unset="none", rows="text")
    """The system prompt, which the model is given before every prompt."""
    template: Literal["auto", "chat", "raw"] = _setting("auto", TEST, rows="text")
    """Whether prompts are put into the tokenizer's chat template; auto does so if there is one."""
    shape: list[int] = _setting([], TEST, "H W C", unset="what the model says", rows="box")
    """The height, width and channels of images, for a model that does not say them itself."""
    resolution: Literal["byte", "float"] = _setting("byte", TEST, rows="box")
    """The values that a pixel can take: 256 of them, or any number."""
    allow_pickle: bool = _setting(False, TEST)
    """Read the tensors of a checkpoint that is a pickle."""
    trust_remote_code: bool = _setting(False, TEST, rows="text")
    """Run the Python code that comes with a Hugging Face model."""
    objectives: list[str] = _setting(
        _OBJECTIVES, FIND, "NAME[:ARG=VAL,...]", option="--objective", min_length=1
    )
    """A behaviour to look for, with its parameters; `lmfuzz list objectives` shows all."""
    confirm: int = _setting(3, FIND, "N", ge=1, le=1000)
    """How often a hit is run again to confirm it."""
    keep: int = _setting(3, FIND, "N", ge=1)
    """The number of findings to keep in each bucket."""
    shrink: bool = _setting(False, FIND)
    """Shrink every finding to a minimal one as soon as it is found."""
    search: str = _setting("directed", SEARCH, "NAME")
    """The search strategy; `lmfuzz list searches` shows all."""
    operators: list[str] = _setting([], SEARCH, "NAME", unset="all that fit the model", option="--operator")
    """A mutation to use; `lmfuzz list operators` shows all."""
    dictionary: str = _setting("", SEARCH, "FILE", unset="none", option="--dictionary/--dict", rows="text")
    """A file of words that mutations insert, in libFuzzer's dictionary format."""
    feature: str = _setting("hidden_last", SEARCH, "NAME")
    """What coverage is measured in; `lmfuzz list features` shows all."""
    radius: float | None = _setting(
        None, SEARCH, "R", unset="measured on the seeds", gt=0, allow_inf_nan=False
    )
    """The distance at which two states count as different."""
    edits: int | None = _setting(None, SEARCH, "N", unset="no bound", rows="text", ge=1)
    """The largest number of edits by which a prompt may differ from its seed."""
    linf: float | None = _setting(None, SEARCH, "E", unset="no bound", rows="box", gt=0, allow_inf_nan=False)
    """The largest change of any number of the input; pixels go from 0 to 1."""
    per_seed: int | None = _setting(None, SEARCH, "N", unset="all seeds together", ge=1)
    """Search from each seed separately, and spend at most N executions on each."""
    budget: str = _setting("1m", SEARCH, "AMOUNT")
    """How long to search: a time such as 90s, 5m or 1.5h, or executions such as 200000x."""
    stop_after: int | None = _setting(None, SEARCH, "N", unset="no limit", ge=1)
    """The number of findings after which to stop."""
    seed: int = _setting(0, SEARCH, "N", ge=0, le=_LARGEST)
    """The seed of all random choices of the search."""
    batch: int = _setting(64, RUN, "N", ge=1, le=65536)
    """The number of inputs that the model runs at once."""
    max_new: int = _setting(50, RUN, "N", rows="text", ge=1, le=100000)
    """The largest number of symbols that the model writes after a prompt."""
    temperature: float = _setting(0.0, RUN, "T", rows="text", ge=0, le=100, allow_inf_nan=False)
    """The sampling temperature; 0 decodes greedily."""
    top_k: int = _setting(0, RUN, "K", rows="text", ge=0)
    """How many of the most likely tokens are sampled from at each step; 0 is all of them."""
    top_p: float = _setting(1.0, RUN, "P", rows="text", gt=0, le=1)
    """The smallest set of the most likely tokens with at least this probability is sampled from."""
    decode_seed: int = _setting(0, RUN, "N", rows="text", ge=0, le=_LARGEST)
    """The seed of the sampling noise, for a temperature above 0."""
    stop: list[str] = _setting([], RUN, "TEXT", unset="none", rows="text")
    """A text at which an output ends."""
    layer: int = _setting(0, RUN, "N", rows="text", ge=0)
    """The block whose hidden states are recorded; 0 is what the output head reads."""
    device: str = _setting("cpu", RUN, "cpu|cuda|auto", rows="text")
    """The device that the model runs on."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = _setting("auto", RUN, rows="text")
    """The data type of the model's weights; auto is float32 on a CPU."""
    batch_tokens: int | None = _setting(None, RUN, "N", unset="what memory allows", rows="text", ge=1)
    """The largest number of tokens in a batch."""
    threads: int | None = _setting(
        None, RUN, "N", unset="1, or all for 50 million parameters or more", rows="text", ge=1, le=1024
    )
    """The number of threads that PyTorch uses."""

    @field_validator("budget")
    @classmethod
    def _budget(cls, text: str) -> str:
        Budget.parse(text)
        return text

    @field_validator("search", "feature", "objectives", "operators")
    @classmethod
    def _calls(cls, texts: str | list[str]) -> str | list[str]:
        calls = [parse(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if twice := [str(call) for i, call in enumerate(calls) if call in calls[:i]]:
            raise ValueError(f"must not name {twice[0]} twice")
        return texts

    @field_validator("stop")
    @classmethod
    def _stops(cls, texts: list[str]) -> list[str]:
        if "" in texts:
            raise ValueError("must be a list of texts that are not empty")
        return texts

    @model_validator(mode="after")
    def _whole(self) -> "Spec":
        if self.min_length > self.max_length:
            raise UsageError(
                f"min_length is {self.min_length}, more than max_length, which is {self.max_length}"
            )
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise UsageError("--top-k and --top-p restrict sampling; give a --temperature above 0 too")
        try:
            self.model_dump_json().encode()
        except ValueError:
            raise UsageError("a path or text in the spec is not UTF-8; give it in UTF-8") from None
        return self


def own_object(name: str, own: Own) -> Any:
    """Return the object that was given from Python under this name; None if the name is of another kind.

    Raises UsageError when there is no such object, as in another process.
    """
    if name.startswith(PYTHON) and name not in own:
        raise UsageError(
            f"{name.removeprefix(PYTHON)} is an object that the campaign was given in Python; open it there,"
            " and give that object again: lmfuzz.open(DIRECTORY, model=..., objectives=[...])"
        )
    return own.get(name)


def setting(key: str) -> Setting:
    """What is said of the field ``key`` of Spec."""
    return next(entry for entry in Spec.model_fields[key].metadata if isinstance(entry, Setting))


def option_name(key: str) -> str:
    """How a setting is given on the command line: ``--max-new``, or MODEL where it has no option."""
    said = setting(key).option if key in Spec.model_fields else ""
    return said.partition("/")[0] or f"--{key.replace('_', '-')}"


def read(path: Path) -> dict[str, Any]:
    """What a TOML file holds; UsageError when it is missing, not UTF-8 or not TOML (with line and column)."""
    text = read_text(path, "TOML file")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {_place(str(error), text)}") from None


def load(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, checked one by one, the records of a campaign.toml left out.

    Raises UsageError as ``read`` does, and for an unknown key or a wrong value.
    """
    config = read(path)
    for record in _RECORDS:
        if not isinstance(config.pop(record, {}), dict):
            raise UsageError(
                f"{record} in {path} is a table that lmfuzz writes; the model to test is 'model'"
            )
    for key, value in config.items():
        _checked({**_WIDEST, key: value}, {key: f"{key} in {path}"})
    return config


def resolve(config: Mapping[str, Any], options: Mapping[str, Any], file: str = "campaign.toml") -> Spec:
    """The spec of a ``file``'s ``config`` and the command line's ``options``, which win.

    Options that are None or empty were not given. Raises UsageError for a key or value that is wrong.
    """
    given = {key: _plain(value) for key, value in options.items() if value is not None and value != ()}
    sources = {key: option_name(key) for key in given}
    files = {key: f"{key} in {file}" for key in config if key not in given}
    return _checked({**config, **given}, {**files, **sources})


def stored(settings: Mapping[str, Any], where: str) -> Spec:
    """The spec that a campaign was made with; settings that there were not yet have their defaults.

    where: what the campaign is, for sentences. UsageError for settings that this version does not know.
    """
    if odd := sorted(settings.keys() - Spec.model_fields.keys()):
        raise UsageError(
            f"{where} has settings that lmfuzz {lmfuzz.__version__} does not know ({', '.join(odd)}); "
            "it was made by a newer version: read it with that one"
        )
    return resolve(settings, {}, where)


def write(spec: Spec, path: Path, made_with: Mapping[str, str], target: Mapping[str, str]) -> None:
    """Write ``spec`` as TOML that reads back equal, with the records of what it ran on."""
    tables = {"made_with": dict(made_with), "target": dict(target)}
    settings = spec.model_dump(exclude_none=True)  # TOML has no null; all such fields default to None
    text = tomli_w.dumps({**settings, **{name: table for name, table in tables.items() if table}})
    files.write(text, path)


def _checked(settings: dict[str, Any], sources: Mapping[str, str]) -> Spec:
    """The spec; ``sources`` says for every key what to call it."""
    fields = Spec.model_fields
    for key in settings:
        if key not in fields:
            place = sources[key].removeprefix(key)
            name = repr(key) + place if place != sources[key] else sources[key]
            raise UsageError(f"unknown key {name}{nearest(key, fields)}")
    try:
        return Spec(**settings)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        wrong = complaint(error, settings[key], fields[key].annotation)
        raise UsageError(f"{sources[key]} {wrong}") from None


def _plain(value: Any) -> Any:
    """A command line's value as TOML would have it."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _place(message: str, text: str) -> str:
    """The parser's sentence, with line and column also where it says 'at end of document'."""
    lines = text.rstrip().split("\n")
    end = f"at line {len(lines)}, column {len(lines[-1]) + 1}"
    return message.replace("at end of document", end)
