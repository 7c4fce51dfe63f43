"""Small causal language models with random weights and a byte-pair tokenizer, in the Hugging Face format."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.loader import CausalFolder
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.sampling import Decoding

CORPORA = Path(__file__).parents[2] / "corpora"
END = "<|endoftext|>"
VOCABULARY = 400
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 128},
    "llama": {
        "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 128,
    },
}  # fmt: skip
SIZES["qwen2"] = SIZES["mistral"] = SIZES["llama"]
SIZES["gpt_neox"] = {key: value for key, value in SIZES["llama"].items() if key != "num_key_value_heads"}
SIZES["phi3"] = SIZES["llama"] | {"sliding_window": 12}
SIZES["gemma3_text"] = SIZES["llama"] | {
    "sliding_window": 12, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
SIZES["bloom"] = {"n_layer": 2, "hidden_size": 32, "n_head": 4}  # without position ids
SIZES["mamba"] = {"num_hidden_layers": 2, "hidden_size": 32, "state_size": 4}  # without attention


@cache
def tokenizer(marker: bool = False, chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-pair tokens of the bundled prompts; with ``marker`` a beginning of text is put in front."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = [END, "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train([str(path) for path in sorted((CORPORA / "seeds").glob("*.txt"))], trainer)
    if marker:
        made.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, 0)]
        )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, bos_token=END)
    if chat:
        wrapped.chat_template = CHAT
    return wrapped


@cache
def model(kind: str, seed: int = 0, scale: float = 6.0) -> torch.nn.Module:
    """A model of this kind whose weights are ``scale`` times as large as usual, so that it has opinions."""
    config = transformers.AutoConfig.for_model(
        kind, **SIZES[kind], vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa" if kind not in ("bloom", "mamba") else None
    )
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if weights.ndim >= 2 and "conv" not in name and "A_log" not in name:
                weights.mul_(scale)
    return made.eval()


@cache
def tokens(marker: bool = False, chat: bool = False, system: str = "") -> Tokens:
    """The same tokenizer as lmfuzz has it; with ``chat`` in a template."""
    json = tokenizer(marker, chat).backend_tokenizer.to_str()
    if not chat:
        return Tokens(json, system)
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return Tokens(json, f"{turn}<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", special=False)


def target(
    kind: str = "llama", *, marker: bool = False, ends: tuple[int, ...] = (0,), **more: object
) -> CausalLM:
    """A target, on a ``device``; ``more`` are fields of HFOptions or Decoding, or bounds of the length."""
    chat, system, seed = more.pop("chat", False), more.pop("system", ""), more.pop("model_seed", 0)
    module = model(kind, seed)
    if device := more.pop("device", None):
        module = deepcopy(module).to(device)
    fields = {key: more.pop(key) for key in list(more) if key in Decoding.__dataclass_fields__}
    decoding, found = (
        Decoding(**{"max_new": 12, **fields}),
        CausalFolder(module, tokens(marker, chat, system), ends),
    )
    lengths = {key: more.pop(key) for key in ("min_length", "max_length") if key in more}
    return CausalLM(found, kind, decoding, HFOptions(**more), **lengths)


def save(folder: Path, kind: str = "llama", chat: bool = False) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    model(kind).save_pretrained(folder)
    tokenizer(chat=chat).save_pretrained(folder)
    return folder
