"""A coverage-guided behaviour fuzzer for language models."""

from importlib import import_module

__version__ = "0.3.0"
__path__.append(f"{__path__[0]}/compat")  # modules under the names that earlier versions gave them

_MODULES = {  # those that have what Python programs use; they are loaded when it is asked for
    "api.entry": ("fuzz", "diff", "open"),
    "api.result": ("Result",),
    "types": ("Finding", "Evidence", "Batch"),
    "protocols": ("Target",),
    "inputs.spaces": ("TextSpace", "BoxSpace"),
    "targets.function": ("on",),
    "errors": ("UsageError", "TargetError", "DiskError"),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lmfuzz' has no attribute {name!r}")
    return getattr(import_module(f"lmfuzz.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
