"""The settings of a campaign: from a file, the command line or Python, and back to campaign.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
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

_RECORDS = ("made_with", "target")  # tables of a campaign.toml that record what it ran on
_LARGEST = 2**63 - 1
_LONGEST = 100_000
_BEFORE_STATES = {"states": "logits"}  # what campaigns measured before there was this setting
_ALONE = {"min_length": 1, "max_length": _LONGEST, "temperature": 1.0}  # lets any key be checked alone


@dataclass(frozen=True, slots=True)
class Setting:
    """Describe a field of Spec for the command line and the documentation, beside its docstring.

    Attributes:
        group: the heading that it stands under.
        metavar: the placeholder for its value in the help.
        option: how it is typed, if that is not its name with dashes.
        unset: what its default means, if the default itself does not say so.
        rows: the only kind of model that it is for, "text" or "box"; '' for both.
    """

    group: str
    metavar: str = ""
    option: str = ""
    unset: str = ""
    rows: Literal["", "text", "box"] = ""


def _setting(default: Any, group: str, metavar: str = "", **more: Any) -> Any:
    """A field of Spec; ``more`` are attributes of its Setting, and checks that pydantic makes."""
    about = {name: more.pop(name) for name in ("option", "unset", "rows") if name in more}
    field = Field(default=default, **more)
    field.metadata.append(Setting(group, metavar, **about))
    return field


Own = Mapping[str, Any]  # objects that were given from Python, by the names that a spec has for them
NO_OBJECTS: Own = {}
PYTHON = "python:"  # the beginning of such a name
TEST, FIND, SEARCH, RUN = "What to test", "What to look for", "How to search", "How the model runs"
_OBJECTIVES = ["repetition", "phrases:file=corpora:words/blacklist.txt"]


class Spec(BaseModel):
    """Hold every setting of a campaign; two campaigns with equal specs do the same.

    Its fields are the command-line options, the keys of campaign.toml and the arguments of ``lmfuzz.fuzz``.
    Paths are kept as given, relative to the working directory; ``corpora:`` in front of one means bundled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    model: str = _setting("", TEST, "MODEL", unset="the bundled model", option="MODEL")
    """The model to test: a checkpoint folder, a Hugging Face folder or name, or file.py:factory."""
    twin: str = _setting("", TEST, "TWIN", unset="none", option="TWIN")
    """A model to compare the first one with, or a recipe that compresses it, such as int8."""
    seeds: list[str] = _setting([], TEST, "NAME|FILE|DIR", unset="the bundled seeds")
    """Inputs to start from: a file or folder of prompts (lines of text, JSON, CSV, Parquet, Arrow) or images,
    the name of a data set (digits, mnist, mnist:train, cifar10), - for prompts from standard input, model:N
    for N prompts that the model itself writes, or a single prompt, written text:PROMPT.
    """
    seed_field: str = _setting(
        "", TEST, "NAME", unset="prompt, text, question, goal or messages", rows="text"
    )
    """The field or column of the seeds that holds the prompt; a.b is the field b of the field a."""
    count: int | None = _setting(None, TEST, "N", unset="all", ge=1)
    """The number of seeds to use."""
    min_length: int = _setting(1, TEST, "N", rows="text", ge=1)
    """The minimum length of a prompt, in characters or tokens."""
    max_length: int = _setting(64, TEST, "N", rows="text", ge=1, le=_LONGEST)
    """The maximum length of a prompt, in characters or tokens."""
    unknown: Literal["error", "drop"] = _setting("error", TEST, rows="text")
    """What to do about characters in seeds that the model does not know: stop with an error, or drop them."""
    level: Literal["char", "token"] = _setting("char", TEST, rows="text")
    """What mutations change in the prompts of a Hugging Face model: characters or tokens."""
    system: str = _setting("", TEST, "TEXT", unset="none", rows="text")
    """The system prompt that the model is given before every prompt; reports show its length."""
    template: Literal["auto", "chat", "raw"] = _setting("auto", TEST, rows="text")
    """Whether to put prompts into the tokenizer's chat template; auto does so if the tokenizer has one."""
    clock: str = _setting("", TEST, "TIME", unset="when the campaign begins", rows="text")
    """The time that a chat template shows if it asks for one, such as 2024-07-26T12:00:00."""
    shape: list[int] = _setting([], TEST, "H W C", unset="declared by the model", rows="box")
    """The height, width and channels of images, for a model that does not declare them."""
    resolution: Literal["byte", "float"] = _setting("byte", TEST, rows="box")
    """The values that a pixel can take: one of 256 (byte), or any number (float)."""
    allow_pickle: bool = _setting(False, TEST)
    """Load a checkpoint that is a pickle; only its tensors are read."""
    trust_remote_code: bool = _setting(False, TEST)
    """Run the code that comes with a Hugging Face model, or is in an exported program of torch."""
    objectives: list[str] = _setting(
        _OBJECTIVES, FIND, "NAME[:ARG=VAL,...]", option="--objective", min_length=1
    )
    """A behaviour to look for, with its parameters; `lmfuzz list objectives` shows them all."""
    baseline: list[str] = _setting([], FIND, "DIR|FILE", unset="none")
    """Known behaviour, which is counted and not reported: the buckets of the campaign in a directory, or of a
    file that lmfuzz export --format baseline wrote.
    """
    ignore: list[str] = _setting([], FIND, "PATTERN", unset="none")
    """A shell-style pattern of the names of more known buckets, such as 'crash: ValueError*'."""
    confirm: int = _setting(3, FIND, "N", ge=1, le=1000)
    """The number of times to run a hit again to confirm it."""
    keep: int = _setting(3, FIND, "N", ge=1)
    """The maximum number of findings to keep of each variant of a bucket; of a bucket, ten times as many."""
    shrink: bool = _setting(False, FIND)
    """Shrink every finding to a minimal input as soon as it is found."""
    allow_unscored: bool = _setting(False, FIND)
    """Accept that an objective cannot score more than a tenth of the inputs."""
    search: str = _setting("directed", SEARCH, "NAME")
    """The search strategy; `lmfuzz list searches` shows them all."""
    operators: list[str] = _setting([], SEARCH, "NAME", unset="all that fit the model", option="--operator")
    """A mutation operator to use; `lmfuzz list operators` shows them all."""
    dictionary: str = _setting("", SEARCH, "FILE", unset="none", option="--dictionary/--dict", rows="text")
    """A file of words for mutations to insert, in libFuzzer's dictionary format."""
    feature: str = _setting("hidden_last", SEARCH, "NAME")
    """The feature that coverage is measured in; `lmfuzz list features` shows them all."""
    radius: float | None = _setting(
        None, SEARCH, "R", unset="measured on the seeds", gt=0, allow_inf_nan=False
    )
    """The distance at which two states count as different."""
    edits: int | None = _setting(None, SEARCH, "N", unset="no bound", rows="text", ge=1)
    """The maximum number of edits between a prompt and its seed."""
    linf: float | None = _setting(None, SEARCH, "E", unset="no bound", rows="box", gt=0, allow_inf_nan=False)
    """The maximum change of any value of an input; the values of pixels range from 0 to 1."""
    per_seed: int | None = _setting(None, SEARCH, "N", unset="all seeds together", ge=1)
    """Search from each seed separately, with at most N executions for each."""
    budget: str = _setting("1m", SEARCH, "AMOUNT")
    """How long to search: a time such as 90s, 5m or 1.5h, or a number of executions such as 200000x."""
    stop_after: int | None = _setting(None, SEARCH, "N", unset="no limit", ge=1)
    """The number of findings after which to stop."""
    seed: int = _setting(0, SEARCH, "N", ge=0, le=_LARGEST)
    """The seed of all random choices of the search."""
    batch: int = _setting(64, RUN, "N", ge=1, le=65536)
    """The number of inputs that the model runs at once."""
    row_timeout: float | None = _setting(
        None, RUN, "SECONDS", unset="no limit", gt=0, le=1e6, allow_inf_nan=False
    )
    """The time in seconds that the model or an objective may take for an input. A batch that takes longer is
    split until the inputs to blame stand alone: with the model they are crashes, with an objective unscored.
    """
    max_new: int = _setting(50, RUN, "N", rows="text", ge=1, le=100000)
    """The maximum number of characters or tokens that the model generates after a prompt."""
    temperature: float = _setting(0.0, RUN, "T", rows="text", ge=0, le=100, allow_inf_nan=False)
    """The sampling temperature; 0 decodes greedily."""
    top_k: int = _setting(0, RUN, "K", rows="text", ge=0)
    """Sample only from the K most likely tokens; 0 means all of them."""
    top_p: float = _setting(1.0, RUN, "P", rows="text", gt=0, le=1)
    """Sample only from the fewest most likely tokens whose probabilities add up to P."""
    decode_seed: int = _setting(0, RUN, "N", rows="text", ge=0, le=_LARGEST)
    """The seed of the sampling noise, used if the temperature is above 0."""
    stop: list[str] = _setting([], RUN, "TEXT", unset="none", rows="text")
    """A text that ends the output where it appears."""
    layer: int = _setting(0, RUN, "N", rows="text", ge=0)
    """The block whose hidden states are recorded; 0 means the input of the output head."""
    states: Literal["hidden", "logits"] = _setting("hidden", RUN, rows="text")
    """What is recorded as the states of a torch module of one's own: its hidden states, or its logits."""
    device: str = _setting("cpu", RUN, "cpu|cuda|auto", rows="text")
    """The device to run the model on."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = _setting("auto", RUN, rows="text")
    """The data type of the model's weights; auto means float32 on a CPU, and as stored on a GPU."""
    batch_tokens: int | None = _setting(None, RUN, "N", unset="what fits in memory", rows="text", ge=1)
    """The maximum number of tokens in a batch."""
    threads: int | None = _setting(
        None, RUN, "N", unset="1, or all for 50 million parameters or more", rows="text", ge=1, le=1024
    )
    """The number of threads that PyTorch uses."""

    @field_validator("search", "feature", "objectives", "operators")
    @classmethod
    def _calls(cls, texts: str | list[str]) -> str | list[str]:
        calls = [parse(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if twice := [str(call) for i, call in enumerate(calls) if call in calls[:i]]:
            raise ValueError(f"must not name {twice[0]} twice")
        return texts

    @field_validator("clock")
    @classmethod
    def _time(cls, text: str) -> str:
        try:
            return datetime.fromisoformat(text).isoformat() if text else text
        except ValueError:
            raise ValueError("must be a time such as 2024-07-26T12:00:00") from None

    @model_validator(mode="after")
    def _whole(self) -> "Spec":
        Budget.parse(self.budget)
        if "" in self.stop:
            raise UsageError("stop must not contain an empty text; leave that one out")
        if self.min_length > self.max_length:
            raise UsageError(f"min_length ({self.min_length}) is larger than max_length ({self.max_length})")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise UsageError("top_k and top_p restrict sampling; set a temperature above 0 too")
        try:
            self.model_dump_json().encode()
        except ValueError:
            raise UsageError("a path or text in the spec is not UTF-8; give it in UTF-8") from None
        return self


def own_object(name: str, own: Own) -> Any:
    """Return the object that was given from Python under this name; None if it names no such object.

    Raises:
        UsageError: the object is missing, for example in another process.
    """
    if name.startswith(PYTHON) and name not in own:
        raise UsageError(
            f"{name.removeprefix(PYTHON)} is an object that the campaign was given in Python; open the "
            "campaign there and pass it again: lmfuzz.open(DIRECTORY, model=..., objectives=[...])"
        )
    return own.get(name)


def setting(key: str) -> Setting:
    """Return the description of the field ``key`` of Spec."""
    return next(entry for entry in Spec.model_fields[key].metadata if isinstance(entry, Setting))


def option_name(key: str) -> str:
    """Return how a setting is typed on the command line: ``--max-new``, or MODEL for an argument."""
    option = setting(key).option if key in Spec.model_fields else ""
    return option.partition("/")[0] or f"--{key.replace('_', '-')}"


def read(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageError: it is missing, not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(read_text(path, "TOML file"))
    except (ValueError, RecursionError) as error:  # of too many digits, too
        raise UsageError(f"{path} is not TOML: {error}") from None


def load(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, checked one by one, without the records of a campaign.toml.

    Raises:
        UsageError: as of ``read``, and for an unknown key or a wrong value.
    """
    config = read(path)
    for record in _RECORDS:
        if not isinstance(config.pop(record, {}), dict):
            raise UsageError(f"{record} in {path} must be a table; the key for the model to test is 'model'")
    for key, value in config.items():
        _checked({**_ALONE, key: value}, {key: f"{key} in {path}"})
    return config


def resolve(config: Mapping[str, Any], options: Mapping[str, Any], file: str = "campaign.toml") -> Spec:
    """Return the spec of a file's settings and of options, which take precedence.

    Args:
        config: the settings in the file.
        options: the settings on the command line; those that are None or empty were not given.
        file: what to call the file in errors.

    Raises:
        UsageError: a key or value is wrong.
    """
    given = {key: value for key, value in options.items() if value is not None and value != ()}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    sources = {key: option_name(key) for key in given}
    files = {key: f"{key} in {file}" for key in config if key not in given}
    return _checked({**config, **given}, {**files, **sources})


def stored(settings: Mapping[str, Any], where: str) -> Spec:
    """Return the spec that a campaign was made with; settings that are newer than it have their defaults.

    Args:
        settings: what the campaign stores.
        where: what to call the campaign in errors.

    Raises:
        UsageError: this version does not know a setting.
    """
    if odd := sorted(settings.keys() - Spec.model_fields.keys()):
        raise UsageError(
            f"{where} has settings that lmfuzz {lmfuzz.__version__} does not know ({', '.join(odd)}); "
            "a newer version made it: read it with that version"
        )
    return resolve({**_BEFORE_STATES, **settings}, {}, where)


def write(spec: Spec, path: Path, made_with: Mapping[str, str], target: Mapping[str, str]) -> None:
    """Write ``spec`` as TOML that reads back equal, with a record of the versions and the target."""
    settings = spec.model_dump(exclude_none=True)  # TOML has no null; all such fields default to None
    tables = {name: dict(table) for name, table in zip(_RECORDS, (made_with, target), strict=True) if table}
    files.write(tomli_w.dumps({**settings, **tables}), path)


def _checked(settings: dict[str, Any], sources: Mapping[str, str]) -> Spec:
    """The spec of these settings; ``sources`` says what to call each key in errors."""
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
