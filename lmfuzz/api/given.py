"""Objects that Python programs may give in place of names: models, detectors and prompts."""

import os
import re
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import PREFIX
from lmfuzz.inputs.datasets import FILES
from lmfuzz.inputs.prompts import FORMATS, STDIN, TEXT
from lmfuzz.inputs.seeds import MODEL
from lmfuzz.spec import NO_OBJECTS, PYTHON, Own, Spec
from lmfuzz.types import Alphabet

_ENDINGS = (*filter(None, FORMATS), ".npy", ".png", ".jpg", ".gz")


class Objects:
    """Collect the objects that a campaign is given, by the names that its spec has for them.

    Args:
        tokenizer: the tokenizer of models that are objects.
        alphabet: the alphabet of models that are modules.
        own: objects that have names already.
    """

    def __init__(
        self, tokenizer: Any = None, alphabet: Alphabet | None = None, own: Own = NO_OBJECTS
    ) -> None:
        self.own = dict(own)
        self._tokenizer, self._alphabet = tokenizer, alphabet

    def model(self, model: Any, role: str = "model") -> str:
        """Return what a spec calls a model: a name or path unchanged, an object by its type.

        Raises:
            UsageError: it is a class, or a tokenizer or an alphabet was given for a name.
        """
        if isinstance(model, str | os.PathLike):
            if (self._tokenizer, self._alphabet) != (None, None) and role == "model":
                raise UsageError("tokenizer= and alphabet= are for a model that is an object, not for a name")
            return os.fspath(model)
        if isinstance(model, type):
            raise UsageError(f"the {role} is the class {model.__name__}; give an instance of it")
        from lmfuzz.targets.kinds import Given

        return self._named(model, Given(model, self._tokenizer, self._alphabet))

    def objectives(self, objectives: Any) -> list[str]:
        """Return what a spec calls objectives, given as one or as a list."""
        several = objectives if isinstance(objectives, list | tuple) else [objectives]
        return [self._objective(objective) for objective in several]

    def _objective(self, objective: Any) -> str:
        """What a spec calls an objective: a text unchanged, a detector by its name."""
        if isinstance(objective, str):
            return objective
        if isinstance(objective, type) or not callable(objective):
            shown = objective.__name__ if isinstance(objective, type) else repr(objective)
            raise UsageError(f"{shown} is not an objective: give a text, a function, or an object to call")
        return self._named(objective, objective)

    def _named(self, thing: Any, kept: Any) -> str:
        """A new name, under which ``kept`` is stored."""
        plain = re.sub(r"\W", "", str(getattr(thing, "__name__", type(thing).__name__)))
        free = (f"{PYTHON}{plain}" + (f"_{n}" if n > 1 else "") for n in range(1, len(self.own) + 2))
        name = next(name for name in free if name not in self.own)
        self.own[name] = kept
        return name


def path(given: Any, what: str) -> Path:
    """Return a path; raise UsageError if ``what`` is given as something else."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{what} must be a path, not {given!r}")
    return Path(given)


def seed_names(seeds: Any) -> list[str]:
    """Return what a spec calls seeds: files, folders and data sets unchanged, other texts as prompts.

    Raises:
        UsageError: it is anything else, or a name that looks like a file that does not exist.
    """
    several = [seeds] if isinstance(seeds, str | os.PathLike) else seeds
    if not isinstance(several, Iterable):
        raise UsageError(f"seeds are prompts, or paths of files and folders, not {type(seeds).__name__}")
    if not (names := [_seed_name(seed) for seed in several]):
        raise UsageError("seeds is empty; leave it out for the bundled seeds")
    return names


def _seed_name(seed: Any) -> str:
    if isinstance(seed, os.PathLike):
        return str(os.fspath(seed))
    if not isinstance(seed, str):
        raise UsageError(f"a seed is a prompt or a path, not {seed!r}")
    named = seed.startswith((PREFIX, TEXT, MODEL)) or seed in (*FILES, STDIN)
    looks = seed.lower().endswith(_ENDINGS) and not any(map(str.isspace, seed))
    if not named and looks and not Path(seed).exists():
        raise UsageError(f"there is no file {seed}; if it is a prompt, write {TEXT}{seed}")
    return seed if named or (seed and len(seed) < 256 and Path(seed).exists()) else TEXT + seed


def objects_of(spec: Spec, model: Any, twin: Any, objectives: Any, objects: Objects) -> Own:
    """Return the objects that a campaign was given, by the names that its spec has for them.

    Args:
        spec: the settings of the campaign.
        model: the model, if it was an object.
        twin: the twin, if it was an object.
        objectives: the objectives that were objects, in their order.
        objects: what turns objects into names.

    Raises:
        UsageError: the campaign was not given one of these as an object.
    """
    found: dict[str, Any] = {}
    for role, name, thing in (("model", spec.model, model), ("twin", spec.twin, twin)):
        if thing is not None:
            found[name] = objects.own.get(objects.model(thing, role))
    named = [text for text in spec.objectives if text.startswith(PYTHON)]
    called = objects.objectives(objectives)
    pairs = zip_longest(named[: len(called)], called, fillvalue="")
    found |= {name: objects.own.get(one) for name, one in pairs}
    if any(thing is None or not name.startswith(PYTHON) for name, thing in found.items()):
        kept = [name for name in (spec.model, spec.twin, *spec.objectives) if name.startswith(PYTHON)]
        had = ", ".join(name.removeprefix(PYTHON) for name in kept) or "none"
        raise UsageError(f"give only the objects that the campaign was given when it began: {had}")
    return found
