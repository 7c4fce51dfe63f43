"""A tiny model with random weights of every family that transformers has as a causal language model."""

import inspect

import torch
import transformers

from helpers.small_lms import VOCABULARY

WINDOW = 16
_TYPES = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
_TINY = {
    "vocab_size": VOCABULARY + 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "is_decoder": True,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "swa_window_size"), WINDOW),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "max_window_layers"), 1),
    "mamba_d_head": 8, "mamba_n_heads": 8, "mamba_d_state": 4, "mamba_d_ssm": 64, "rotary_dim": 4,
    "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY + 8,
    "num_experts_per_tok": 2, "state_size": 4, "use_sliding_window": True,
}  # fmt: skip


# What else a family needs to be built or run in this size.
_MORE = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": WINDOW},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "zaya": {"num_experts_per_tok": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
}  # fmt: skip


def tiny(kind: str, **more: object) -> torch.nn.Module:
    """A model of a family, of two layers if it can be, one of which sees only a window, if it can be."""
    made = transformers.CONFIG_MAPPING[kind]
    fields = {field for base in made.__mro__ for field in getattr(base, "__annotations__", {})}
    fields |= {*inspect.signature(made.__init__).parameters}
    settings = {key: value for key, value in _TINY.items() if key in fields} | _MORE.get(kind, {}) | more
    if "qk_rope_head_dim" in fields:
        settings.pop("head_dim", None)
        settings["num_key_value_heads"] = 4
    config = made(**settings)
    types = getattr(config, "layer_types", None) or []
    if len({*types}) == 1 and "layer_types" not in settings and types[0] in _TYPES:
        first = "sliding_attention" if getattr(config, "sliding_window", None) else types[0]
        try:
            config = made(**settings, layer_types=[first, "full_attention"])
            return _opinionated(config)
        except Exception:  # of whatever kind: the family wants all of one type
            config = made(**settings)
    return _opinionated(config)


def _opinionated(config: transformers.PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    made.generation_config.forced_eos_token_id = None
    made.generation_config.eos_token_id = made.generation_config.pad_token_id = 0
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if weights.ndim >= 2 and "conv" not in name and "A_log" not in name:
                weights.mul_(min(6.0, 0.5 / float(weights.std().clamp(min=1e-3))))
    return made
