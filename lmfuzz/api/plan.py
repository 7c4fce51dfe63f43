"""A dry run: what a campaign would do, and how fast its model is; nothing is written."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmfuzz.budget import Budget
from lmfuzz.campaign.build import FEW, Parts
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import Target
from lmfuzz.spec import RUN, Spec, setting
from lmfuzz.targets.capabilities import Compressible
from lmfuzz.targets.twins.pair import Pair
from lmfuzz.text import columns, escape, format_duration, plural, shell_quote


def plan_lines(parts: Parts, directory: Path) -> Iterator[str]:
    """Yield what a campaign in ``directory`` would run; the speed of one batch, which is run, comes last.

    Raises:
        UsageError: an objective does not fit the model.
        TargetError: the model raises on every input.
    """
    spec, target, context = parts.spec, parts.evaluator.target, parts.context
    kinds = ("", "box" if isinstance(context.space, BoxSpace) else "text")
    keys = [key for key in Spec.model_fields if setting(key).group == RUN and setting(key).rows in kinds]
    lengths = [] if "box" in kinds else ["max_length"]
    set_ = {key: value for key in [*lengths, *keys] if (value := getattr(spec, key)) not in (None, [])}
    limit = f", or {plural(spec.stop_after, 'finding')}" if spec.stop_after else ""
    models = (target.base, target.twin) if isinstance(target, Pair) else (target,)
    names = (spec.model or "the bundled model", spec.twin)
    rows = {
        "model": f"{' and '.join(filter(None, names))}, identity {target.identity}",
        "weights": " and ".join(map(_weights, models)),
        "seeds": f"{len(context.seeds)}, from {', '.join(spec.seeds) or 'the default'}",
        "objectives": f"{', '.join(spec.objectives)}, with {plural(len(parts.objectives.targets), 'target')}",
        "operators": ", ".join(context.operators),
        "search": f"{spec.search} in {spec.feature}, seed {spec.seed}",
        "settings": ", ".join(f"{key} {value}" for key, value in set_.items()),
        "budget": f"{spec.budget}{limit}",
        "directory": shell_quote(directory),
    }
    yield from columns([(name, escape(text)) for name, text in rows.items()])
    yield _speed(parts)


def _weights(target: Target) -> str:
    """How many weights a model has, and where they are, if it is one of torch."""
    weights = [*target.module.parameters()] if isinstance(target, Compressible) else []
    if not weights:
        return "not known"
    return f"{sum(one.numel() for one in weights):,} in {weights[0].dtype} on {weights[0].device}"


def _speed(parts: Parts) -> str:
    """What one batch took, and what follows for the budget."""
    seeds, evaluator, budget = parts.context.seeds, parts.evaluator, Budget.parse(parts.spec.budget)
    parts.objectives.check(seeds[:FEW], evaluator.run(seeds[:FEW]))  # the first run of a model is slow
    batch = seeds[np.resize(np.arange(len(seeds)), parts.spec.batch)]
    before = evaluator.executor.seconds
    evaluator.executor.run(batch, parts.wants)
    took = max(evaluator.executor.seconds - before, 1e-9)
    rate = len(batch) / took
    if budget.seconds:
        allows = f"at most {rate * budget.seconds:,.0f} rows in {parts.spec.budget}, calibration included"
    else:
        allows = f"{budget.executions} rows in {format_duration((budget.executions or 0) / rate)} or more"
    return f"measured: {plural(len(batch), 'row')} in {took:.3g} s, {rate:,.1f} rows/s; that allows {allows}"
