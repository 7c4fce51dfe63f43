"""nanoGPT's models of characters as Hugging Face folders: GPT-2, and a tokenizer of single characters."""

import re
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor

from lmfuzz import files
from lmfuzz.errors import UsageError, explaining, quiet
from lmfuzz.targets.importing.state_dict import require_fit
from lmfuzz.text import plural

EMBEDDING = "transformer.wte.weight"
_PREFIX = re.compile(r"^.*?(?=transformer\.|lm_head\.)")
_MASK = ".attn.bias"  # which tokens are seen, where torch had no fused attention
_TRANSPOSED = re.compile(r".*\.(c_attn|c_proj|c_fc)\.weight")  # (out, in) of nn.Linear, (in, out) of Conv1D


def save(tensors: dict[str, Tensor], content: Any, alphabet: str, path: Path, folder: Path) -> str:
    """Write a Hugging Face folder, and return a line that describes the model.

    Args:
        tensors: The state_dict.
        content: What the checkpoint holds: its ``model_args`` say how many heads there are.
        alphabet: The characters, in the order of their tokens.
        path: The checkpoint, for messages.
        folder: The folder to write.

    Raises:
        TargetError: It is not a model of nanoGPT's, or tensors are missing, unknown or misshapen.
    """
    named = {_PREFIX.sub("", name): tensor for name, tensor in tensors.items() if not name.endswith(_MASK)}
    given = {name: t.T if _TRANSPOSED.fullmatch(name) else t for name, t in named.items()}
    embedding = given[EMBEDDING]
    given.setdefault("lm_head.weight", embedding)
    with quiet():
        transformers = import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        with explaining(
            f"{path} lacks the model_args that nanoGPT writes beside its model, or they are wrong"
        ):
            of = content["model_args"]
            config = transformers.GPT2Config(
                vocab_size=len(alphabet), n_embd=of["n_embd"], n_layer=of["n_layer"], n_head=of["n_head"],
                n_positions=of["block_size"], activation_function="gelu",  # GPT-2's own is an approximation
                tie_word_embeddings=torch.equal(given["lm_head.weight"], embedding),
                bos_token_id=None, eos_token_id=None,
            )  # fmt: skip
            model = transformers.GPT2LMHeadModel(config)
        wanted = model.state_dict()
        biases = {name: torch.zeros_like(tensor) for name, tensor in wanted.items() if name.endswith(".bias")}
        require_fit(biases | given, wanted, path, "its model_args")
        model.load_state_dict(biases | given)
        # Byte pairs without a pair to merge: every character is a token, and what is unknown is left out.
        tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
        tokenizer.decoder = decoders.Fuse()
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, clean_up_tokenization_spaces=False
        )
        with TemporaryDirectory() as draft, explaining(f"cannot write {folder}", UsageError):
            model.save_pretrained(draft)
            fast.save_pretrained(draft)
            for file in sorted(Path(draft).iterdir()):
                files.write(file.read_bytes(), folder / file.name)
    blocks = f"{plural(config.n_layer, 'layer')} of {config.n_embd}, {plural(config.n_head, 'head')}"
    return f"gpt2, {blocks}, a window of {config.n_positions}, {len(alphabet)} characters"
