"""The planted faults: which campaign looks for each, and what counts as found."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from lmfuzz.objectives.repetition import canonical_period
from lmfuzz.plugins.grammar import parse
from lmfuzz.spec import Spec
from planting.texts import MARK, SEEDS, Plants

Settings = dict[str, Any]
SEARCHES = ("random", "walk", "tensorfuzz", "directed")
OURS = "directed"
REPEATS = 2  # campaigns of a search on a model
STEPS = {"lstm": 500, "llama": 600}  # that a model is trained with


@dataclass(frozen=True)
class Fault:
    """``found``: whether a bucket is this very fault; ``model``: the kind of model that has it.

    objective: what looks for it, CANARY standing for the model's own.
    """

    name: str
    model: str
    about: str
    objective: str
    found: Callable[[Plants, str], bool]


def _canary(plants: Plants, bucket: str) -> bool:
    return bucket == f"phrases/{plants.canary}: {plants.canary}"


def _loop(plants: Plants, bucket: str) -> bool:
    return bucket == f"repetition: loop {canonical_period(plants.loop)!r}"


def _gate(plants: Plants, bucket: str) -> bool:
    return bucket.startswith("regression/nonfinite: ")


def _twin(plants: Plants, bucket: str) -> bool:
    return bucket.startswith("parting: ") and bucket.endswith(f" -> {MARK!r}")


PHRASE = 'phrases:words=["CANARY"]'
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("lstm_canary", "lstm", "LSTM: a string after a rare context", PHRASE, _canary),
        Fault("lstm_loop", "lstm", "LSTM: a trigger that starts a loop", "repetition", _loop),
        Fault("gate", "gate", "LSTM: gates that overflow in 16 bits",
              "regression(nonfinite:overflow=65504)", _gate),
        Fault("twin", "twin", "LSTM: a twin that differs on one context", "disagreement", _twin),
        Fault("llama_canary", "llama", "Llama: a string after a rare context", PHRASE, _canary),
        Fault("llama_loop", "llama", "Llama: a trigger that starts a loop", "repetition", _loop),
    )
}  # fmt: skip
TRAINED = {"lstm": "lstm", "gate": "lstm", "twin": "lstm", "llama": "llama"}  # with which model it comes


def settings(fault: Fault, number: int, models: Path) -> Settings:
    """What the campaigns for a fault in the model of a number have apart from all others."""
    folder = str(models / f"{fault.model}-{number}")
    base = str(models / f"lstm-{number}")
    pair = {"gate": (folder, "fp16"), "twin": (base, folder)}
    model, twin = pair.get(fault.model, (folder, ""))
    objective = fault.objective.replace("CANARY", Plants.of(number).canary)
    made: Settings = {"model": model, "twin": twin, "objectives": [objective]}
    return made if fault.objective == "repetition" else {**made, "stop_after": 1}  # there are other loops


def fault_of(spec: Spec) -> tuple[Fault, int]:
    """Which fault a campaign looks for, and the number of its model."""
    path = spec.model if spec.twin in ("", "fp16") else spec.twin
    kind, _, number = Path(path).name.rpartition("-")
    (objective,) = (parse(text).name for text in spec.objectives)
    fault = next(f for f in FAULTS.values() if (f.model, parse(f.objective).name) == (kind, objective))
    return fault, int(number)


def write_sweep(
    names: Iterable[str], seeds: int, repeats: int, budget: str, folder: Path, models: Path
) -> Path:
    """``folder``/sweep.toml, which ``lmfuzz sweep`` runs, too, and the prompts that campaigns begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": seed}) + "\n" for seed in SEEDS), encoding="utf-8")
    plan = {
        "trials": repeats,
        "campaign": {
            "seeds": [str(prompts)], "budget": budget, "temperature": 1.0, "max_length": 32,
            "max_new": 40, "keep": 1,
        },
        "grid": {
            "fault": {
                name: [settings(FAULTS[name], number, models) for number in range(seeds)] for name in names
            },
            "search": list(SEARCHES),
        },
        "baseline": {"search": OURS},
    }  # fmt: skip
    path = folder / "sweep.toml"
    path.write_text(tomli_w.dumps(plan), encoding="utf-8")
    return path
