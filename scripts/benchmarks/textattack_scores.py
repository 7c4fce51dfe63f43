"""TextAttack's model wrapper on prompts, run by the interpreter of TextAttack's environment alone.

``python textattack_scores.py FOLDER NEW``, as garak_loop.py; NEW is ignored: for a causal language model the
wrapper gives scores, no text. It gets as many prompts at a time as TextAttack's goal functions give it.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

BATCH = 32  # GoalFunction's default


def stand_in(folder: str) -> None:
    """A list of one stop word where NLTK looks last: TextAttack reads one as it starts, the wrapper none."""
    words = Path(folder) / "corpora" / "stopwords" / "english"
    words.parent.mkdir(parents=True)
    words.write_text("the\n", encoding="utf-8")
    os.environ["NLTK_DATA"] = os.pathsep.join(filter(None, [os.environ.get("NLTK_DATA"), folder]))


def loaded(folder: str) -> Any:
    """The wrapper around a model and its tokenizer, which must have a padding token for it."""
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    # By its file: the release of transformers that TextAttack takes does not know what later ones call it.
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    # The wrapper pads every prompt to this, and to 512 tokens where nothing says what the model takes.
    tokenizer.model_max_length = min(512, model.config.max_position_embeddings)
    return HuggingFaceModelWrapper(model, tokenizer)


def main() -> None:
    """Answer until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="lmfuzz-textattack-") as own:
        os.environ["TA_CACHE_DIR"] = own
        stand_in(str(Path(own) / "nltk"))
        import torch

        torch.set_num_threads(1)
        wrapper = loaded(sys.argv[1])
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            prompts = json.loads(line)
            started = time.perf_counter()
            for start in range(0, len(prompts), BATCH):
                wrapper(prompts[start : start + BATCH])
            seconds = time.perf_counter() - started
            answer = {"seconds": seconds, "inside": seconds, "texts": []}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
