"""What Python programs call: ``lmfuzz.fuzz``, ``lmfuzz.diff`` and ``lmfuzz.open``."""

from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from lmfuzz import spec as specs
from lmfuzz.api.given import Objects, objects_of, path, seed_names
from lmfuzz.api.progress import bar
from lmfuzz.api.result import Result
from lmfuzz.api.running import begin, silent
from lmfuzz.campaign.build import build
from lmfuzz.storage.directory import require_empty
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.kinds import lent
from lmfuzz.types import Alphabet


def fuzz(
    model: Any = "",
    *,
    objectives: Any = None,
    seeds: Any = None,
    output: str | Path | None = None,
    tokenizer: Any = None,
    alphabet: Alphabet | None = None,
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Search for inputs on which a model misbehaves.

    Ctrl-C stops the search after the current batch, and what was found is returned.

    Args:
        model: what the command line accepts ('' is the bundled model), a ``torch.nn.Module`` that reads
            symbols (with its ``alphabet``) or images, a Hugging Face causal language model (with its
            ``tokenizer``), a function of tensors with ``lmfuzz.on``, or a ``lmfuzz.Target``.
        objectives: what to look for, one or a list: texts as on the command line, objects that are called as
            ``detect(batch, trace)``, and functions of the output text that return a bool or a margin.
        seeds: prompts, and paths of files or folders; a text that names an existing file is a path.
        output: the directory of the campaign; if None, a temporary one that lives as long as the result.
        tokenizer: the tokenizer of a Hugging Face model that is an object.
        alphabet: the alphabet of a module: a text or list whose item i is symbol i, or a dict from
            characters to numbers or back.
        progress: whether to show a progress bar, in a terminal or a notebook.
        settings: the keys of a campaign.toml, for example ``budget="20000x"`` and ``seed=0``; ``twin`` may
            be an object, as ``model`` is.

    Returns:
        What was found.

    Raises:
        UsageError: an argument is wrong; the error says what would be right.
        TargetError: the model cannot be loaded, or raises on every input.
        DiskError: the disk is full.
    """
    objects = Objects(tokenizer, alphabet)
    given = {**settings, "model": objects.model(model)}
    if given.get("twin") is not None:
        given["twin"] = objects.model(given["twin"], "twin")
    if objectives is not None:
        given["objectives"] = objects.objectives(objectives)
    if seeds is not None:
        given["seeds"] = seed_names(seeds)
    spec, own = specs.resolve(given, {}, "the arguments"), objects.own
    with ExitStack() as cleanup:
        if output is None:
            folder = mkdtemp(prefix="lmfuzz-")
            cleanup.callback(rmtree, folder, ignore_errors=True)
            output = f"{folder}/campaign"
        directory = path(output, "output")
        require_empty(directory)
        with lent(own):
            parts = build(spec, own)
            campaign = begin(parts, directory, note=str, view=bar if progress else silent)
        result = Result(directory, own, parts.notes, campaign.unjudged)
        finalize(result, cleanup.pop_all().close)
    return result


def diff(model: Any, twin: Any, *, objectives: Any = None, **more: Any) -> Result:
    """Search for inputs that a model and its twin answer differently.

    Args:
        model: as for ``fuzz``.
        twin: another model, or a recipe that makes one, for example ``"int8"``.
        objectives: as for ``fuzz``; ``["disagreement"]`` if it is None.
        more: the other arguments of ``fuzz``: seeds, output, tokenizer and alphabet (of both models),
            progress and the settings.

    Returns:
        What was found.

    Raises:
        UsageError: an argument is wrong; the error says what would be right.
        TargetError: a model cannot be loaded, or the two do not fit each other.
        DiskError: the disk is full.
    """
    return fuzz(model, twin=twin, objectives=["disagreement"] if objectives is None else objectives, **more)


def open(
    directory: str | Path,
    *,
    model: Any = None,
    twin: Any = None,
    objectives: Any = (),
    tokenizer: Any = None,
    alphabet: Alphabet | None = None,
) -> Result:
    """Open the campaign in a directory, including one that the command line made.

    Args:
        directory: the directory of the campaign.
        model: the model, if the campaign was given an object.
        twin: the twin, if the campaign was given an object.
        objectives: the objectives that were objects, in their order.
        tokenizer: as for ``fuzz``.
        alphabet: as for ``fuzz``.

    Raises:
        UsageError: there is no campaign, or it cannot be read.
    """
    place = path(directory, "the directory of a campaign")
    spec = CampaignRecord.read(place).spec
    return Result(place, objects_of(spec, model, twin, objectives, Objects(tokenizer, alphabet)))
