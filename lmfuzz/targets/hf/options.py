"""What only Hugging Face models understand of a spec."""

from dataclasses import dataclass, fields

from lmfuzz.spec import Spec


@dataclass(frozen=True)
class HFOptions:
    """How a causal language model is loaded and used: the settings of a Spec that no other model has.

    level: what a symbol of a prompt is, "char" or "token". system: what the model is told before every
    prompt. template: "chat", "raw", or "auto": the tokenizer's own where it has one. layer: the block whose
    states are shown, 0 for what the output head reads. device: "cpu", "cuda" or "auto". dtype: "float32",
    "float16", "bfloat16", or "auto": the checkpoint's on a GPU, float32 elsewhere. batch_tokens: the most in
    a batch, None is found out. threads: of torch on a CPU; None: all for a large model, else 1.
    trust_remote_code: whether code that comes with the weights may be run.
    """

    level: str = "char"
    system: str = ""
    template: str = "auto"
    layer: int = 0
    device: str = "cpu"
    dtype: str = "auto"
    batch_tokens: int | None = None
    threads: int | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, spec: Spec) -> "HFOptions":
        """Return what a spec says of these."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    @property
    def given(self) -> list[str]:
        """The names of those that are not the default."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]
