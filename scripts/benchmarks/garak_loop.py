"""garak's own loop on prompts, run by the interpreter of garak's environment; imports nothing of lmfuzz.

``python garak_loop.py FOLDER NEW``: every line on stdin is a JSON list of prompts. For each, the base harness
runs a probe that holds them on ``huggingface.Model``, with the detector always.Pass and the threshold
evaluator, and a line on stdout says how many seconds that took, how many of them in the generator, and what
was written. One generation per prompt, greedy, NEW tokens, no end of text.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from typing import Any

# Reports, logs and settings of garak go to a folder that is gone afterwards.
OWN = tempfile.TemporaryDirectory(prefix="lmfuzz-garak-")
for place in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
    os.environ[place] = OWN.name


def loaded(folder: str, new: int) -> tuple[Any, Any, Any, Any]:
    """Generator, harness, detector and evaluator, with garak's own settings for what is not named here."""
    from garak import _config, command
    from garak.detectors.always import Pass
    from garak.evaluators.base import ThresholdEvaluator
    from garak.generators.huggingface import Model
    from garak.harnesses.base import Harness

    _config.load_config()
    _config.system.parallel_attempts = _config.system.parallel_requests = False
    _config.run.generations = 1
    _config.transient.cli_args = None
    _config.system.lite = False
    command.start_run()
    _config.buffmanager.buffs = []
    generator = Model(folder)
    generator.max_tokens, generator.hf_args["do_sample"] = new, False
    return generator, Harness(), Pass(), ThresholdEvaluator(0.5)


def probe_of(prompts: list[str]) -> Any:
    """A probe that holds the prompts."""
    from garak.probes.test import Blank

    probe = Blank()
    probe.prompts, probe.generations = prompts, 1
    return probe


def main() -> None:
    """Answer until stdin ends."""
    folder, new = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr  # garak prints what it does
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    generator, harness, detector, evaluator = loaded(folder, new)
    generator.model.generation_config.eos_token_id = generator.generation_config.eos_token_id = None
    texts: list[str] = []
    inside = 0.0
    write = generator._call_model

    def noted(*given: Any) -> Any:
        nonlocal inside
        began = time.perf_counter()
        messages = write(*given)
        inside += time.perf_counter() - began
        texts.extend(message.text for message in messages)
        return messages

    generator._call_model = noted
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        probe, inside = probe_of(json.loads(line)), 0.0
        texts.clear()
        started = time.perf_counter()
        harness.run(generator, [probe], [detector], evaluator, announce_probe=False)
        seconds = time.perf_counter() - started
        answer = {"seconds": seconds, "inside": inside, "texts": texts}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
