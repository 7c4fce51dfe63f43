"""What fixes a campaign: its spec, from a file and the command line, and its campaign.toml."""

import os
import tomllib
from collections.abc import Mapping
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
_OPTIONS = {"objectives": "objective", "operators": "operator"}  # given once for each
_LARGEST = 2**63 - 1
_LONGEST = 100_000
_WIDEST = {"min_length": 1, "max_length": _LONGEST}  # so that one of them can be checked alone


class Spec(BaseModel):
    """Everything that fixes a campaign; two campaigns with equal specs do the same.

    Paths are as given, relative to the working directory; ``corpora:`` in front means bundled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str = ""  # checkpoint folder, file.py:factory or module:factory; '' is the bundled model
    twin: str = ""  # the model to compare it with, or a recipe such as int8; '' is none
    shape: list[int] = []  # (H, W, C) of the images that a model takes which does not say so itself
    resolution: Literal["byte", "float"] = "byte"  # values that pixels can have: 256, or any
    seeds: list[str] = []  # files and folders; empty means the bundled ones
    count: int | None = Field(default=None, ge=1)  # seeds to take; None is all
    objectives: list[str] = Field(
        default=["repetition", "phrases:file=corpora:words/blacklist.txt"], min_length=1
    )
    search: str = "directed"
    feature: str = "hidden_last"
    operators: list[str] = []  # empty means all
    dictionary: str = ""
    budget: str = "1m"
    stop_after: int | None = Field(default=None, ge=1)  # findings
    seed: int = Field(default=0, ge=0, le=_LARGEST)
    batch: int = Field(default=64, ge=1, le=65536)  # rows
    max_new: int = Field(default=50, ge=1, le=100_000)  # symbols the model writes per row
    temperature: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)  # 0 is greedy
    decode_seed: int = Field(default=0, ge=0, le=_LARGEST)
    stop: list[str] = []  # an output ends where one of these begins
    min_length: int = Field(default=1, ge=1)  # symbols of a prompt
    max_length: int = Field(default=64, ge=1, le=_LONGEST)
    unknown: Literal["error", "drop"] = "error"  # characters of seeds outside the alphabet
    allow_pickle: bool = False
    level: Literal["char", "token"] = "char"  # what a symbol of a prompt is, for a model of tokens
    system: str = ""  # what such a model is told before every prompt
    template: Literal["auto", "chat", "raw"] = "auto"  # auto: the tokenizer's chat template where it has one
    layer: int = Field(
        default=0, ge=0
    )  # whose states are shown: that block's, 0 is what the output head reads
    device: str = "cpu"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    batch_tokens: int | None = Field(default=None, ge=1)  # in a batch at most; None is found out
    threads: int | None = Field(
        default=None, ge=1, le=1024
    )  # of torch; None: all for a large model, else one
    trust_remote_code: bool = False
    linf: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # largest change of a value
    edits: int | None = Field(default=None, ge=1)  # largest change of a prompt
    per_seed: int | None = Field(default=None, ge=1)  # rows to run for each seed by itself; None: all as one
    confirm: int = Field(default=3, ge=1, le=1000)  # re-runs per finding
    keep: int = Field(default=3, ge=1)  # findings per bucket
    shrink: bool = False  # findings are made minimal when they are kept
    radius: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # None is calibrated

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
        try:
            self.model_dump_json().encode()
        except ValueError:
            raise UsageError("a path or text in the spec is not UTF-8; give it in UTF-8") from None
        return self


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
    sources = {key: f"--{_OPTIONS.get(key, key).replace('_', '-')}" for key in given}
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
