"""What Python programs call: ``lmfuzz.fuzz``, ``lmfuzz.diff`` and ``lmfuzz.open``."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from lmfuzz import spec as specs
from lmfuzz.api.given import Objects, objects_of, seed_names
from lmfuzz.api.progress import bar
from lmfuzz.api.result import Result
from lmfuzz.api.running import begin, silent
from lmfuzz.campaign.build import build
from lmfuzz.spec import Own
from lmfuzz.storage.directory import require_empty
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.kinds import lent


def fuzz(
    model: Any = "",
    *,
    objectives: Sequence[Any] | None = None,
    seeds: Any = None,
    output: str | Path | None = None,
    tokenizer: Any = None,
    alphabet: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Search for inputs on which a model misbehaves.

    Ctrl-C stops the search after the batch that runs, and what was found is returned.

    Args:
        model: what the command line takes ('' is the bundled model), a ``torch.nn.Module`` that reads
            symbols (with its ``alphabet``) or images, a Hugging Face causal language model (with its
            ``tokenizer``), a function of tensors with ``lmfuzz.on``, or a ``lmfuzz.Target``.
        objectives: what to look for: texts as on the command line, objects to call as
            ``detect(batch, trace)``, and functions of the output text that return a bool or a margin.
        seeds: prompts, and paths of files or folders; a text that names a file that exists is a path.
        output: the directory of the campaign; a temporary one, which goes with the result, if it is None.
        tokenizer: of a Hugging Face model that is an object.
        alphabet: of a module; symbol i is its character i.
        progress: whether to show a progress bar, in a terminal or a notebook.
        settings: the keys of a campaign.toml, such as ``budget="20000x"`` and ``seed=0``.

    Returns:
        What was found; the campaign is on disk as long as the result lives, or for good in ``output``.

    Raises:
        UsageError: something given is wrong; one sentence says what would be right.
        TargetError: the model cannot be loaded, or raises on everything.
        DiskError: the disk takes no more.
    """
    objects = Objects(tokenizer, alphabet)
    given = {**settings, "model": objects.model(model)}
    if objectives is not None:
        given["objectives"] = [objects.objective(one) for one in _several(objectives)]
    if seeds is not None:
        given["seeds"] = seed_names(seeds)
    return _run(given, objects.own, output, progress, "lmfuzz.fuzz(...)")


def diff(
    model: Any,
    twin: Any,
    *,
    objectives: Sequence[Any] | None = None,
    seeds: Any = None,
    output: str | Path | None = None,
    tokenizer: Any = None,
    alphabet: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Search for inputs that a model and its twin answer differently.

    Args:
        model: as ``fuzz`` takes it.
        twin: another model, as ``model`` is given, or a recipe that makes one, such as ``"int8"``.
        objectives: as ``fuzz`` takes them; ``["disagreement"]`` if they are None.
        seeds: as ``fuzz`` takes them, and so the rest.
        output: as of ``fuzz``.
        tokenizer: of models that are objects; both have the same.
        alphabet: of modules; both have the same.
        progress: as of ``fuzz``.
        settings: as of ``fuzz``.

    Returns:
        What was found.

    Raises:
        UsageError: something given is wrong.
        TargetError: a model cannot be loaded, or the two do not fit each other.
        DiskError: the disk takes no more.
    """
    objects = Objects(tokenizer, alphabet)
    given = {**settings, "model": objects.model(model), "twin": objects.model(twin, "twin")}
    wanted = ["disagreement"] if objectives is None else _several(objectives)
    given["objectives"] = [objects.objective(one) for one in wanted]
    if seeds is not None:
        given["seeds"] = seed_names(seeds)
    return _run(given, objects.own, output, progress, "lmfuzz.diff(...)")


def open(
    directory: str | Path,
    *,
    model: Any = None,
    twin: Any = None,
    objectives: Sequence[Any] = (),
    tokenizer: Any = None,
    alphabet: str | None = None,
) -> Result:
    """Open the campaign in a directory, also one that the command line made.

    Args:
        directory: the campaign's.
        model: the model again, if the campaign was given an object.
        twin: the same of its twin.
        objectives: those that were objects, in their order.
        tokenizer: as of ``fuzz``.
        alphabet: as of ``fuzz``.

    Raises:
        UsageError: there is no campaign, or it cannot be read.
    """
    place = Path(directory)
    spec = CampaignRecord.read(place).spec
    return Result(place, objects_of(spec, model, twin, objectives, Objects(tokenizer, alphabet)))


def _several(objectives: Any) -> list[Any]:
    """The objectives of a list, or the one that is none."""
    return list(objectives) if isinstance(objectives, list | tuple) else [objectives]


def _run(given: Mapping[str, Any], own: Own, output: str | Path | None, progress: bool, call: str) -> Result:
    """Begin a campaign and run it; ``call``: what it was asked for with, for sentences."""
    spec = specs.resolve(given, {}, call)
    with ExitStack() as cleanup:
        if output is None:
            folder = mkdtemp(prefix="lmfuzz-")
            cleanup.callback(rmtree, folder, ignore_errors=True)
            output = f"{folder}/campaign"
        directory = Path(output)
        require_empty(directory)
        with lent(own):
            parts = build(spec, own)
            campaign = begin(parts, directory, note=str, view=bar if progress else silent)
        result = Result(directory, own, parts.notes, campaign.unjudged)
        finalize(result, cleanup.pop_all().close)
    return result
