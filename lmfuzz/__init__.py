"""A coverage-guided behaviour fuzzer for language models."""

from importlib import import_module

__version__ = "0.3.0"
__path__.append(f"{__path__[0]}/compat")  # modules under the names that earlier versions gave them

_PUBLIC = {  # what Python programs use -> the module that has it, which is loaded when it is asked for
    "fuzz": "api.entry",
    "diff": "api.entry",
    "open": "api.entry",
    "Result": "api.result",
    "Finding": "types",
    "Evidence": "types",
    "Batch": "types",
    "Target": "protocols",
    "TextSpace": "inputs.spaces",
    "BoxSpace": "inputs.spaces",
    "on": "targets.function",
    "UsageError": "errors",
    "TargetError": "errors",
    "DiskError": "errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lmfuzz' has no attribute {name!r}")
    return getattr(import_module(f"lmfuzz.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
