"""The settings of a spec that only Hugging Face models have."""

from dataclasses import dataclass, fields

from lmfuzz.spec import Spec


@dataclass(frozen=True)
class HFOptions:
    """Hold the settings of a spec that say how a causal language model is loaded and used.

    Attributes:
        level: What a symbol of a prompt is, "char" or "token".
        system: The system prompt.
        template: "chat", "raw", or "auto": the tokenizer's own template if it has one.
        clock: The time that a chat template is told, in ISO 8601; '' is now.
        layer: The block whose states are shown; 0 for what the output head reads.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "float16", "bfloat16", or "auto": the checkpoint's on a GPU, else float32.
        batch_tokens: The most tokens in a batch; None: as many as memory allows.
        threads: The threads of torch on a CPU; None: all for a large model, else 1.
        trust_remote_code: Whether code that comes with the weights may run.
    """

    level: str = "char"
    system: str = ""
    template: str = "auto"
    clock: str = ""
    layer: int = 0
    device: str = "cpu"
    dtype: str = "auto"
    batch_tokens: int | None = None
    threads: int | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, spec: Spec) -> "HFOptions":
        """Return the settings of a spec."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    @property
    def given(self) -> list[str]:
        """The names of the settings that are not the default."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]
