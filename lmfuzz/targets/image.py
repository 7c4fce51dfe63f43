"""Any torch module that classifies images as a target, and the files that hold one."""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmfuzz.errors import TargetError, explaining, quiet
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import Gradients, TargetInfo
from lmfuzz.targets.hooks import Peaks, per_row, submodules, watching
from lmfuzz.targets.validate import answers, examples, fingerprint, frozen, inputs
from lmfuzz.text import import_command
from lmfuzz.types import Array, Batch, FloatArray, IntArray, Trace

CHANNELS = frozenset({
    "text", "logits", "probabilities", "label", "hidden_last", "magnitude", "nonfinite",
})  # fmt: skip
ACTIVATION = "activation/"
_FILES = re.compile(rb"\b(save|from_file|load_tensor)\b")  # functions of TorchScript
_EXTREMES = frozenset({"magnitude", "nonfinite"})


class ImageTarget:
    """Run a module from images float32 (B, C, H, W) to logits (B, K) as a target; rows are (B, H, W, C).

    The module may give a tuple that begins with the logits, or a mapping with ``logits`` and, optionally,
    its own ``probabilities`` (B, K) and ``loss`` (B,). Only what is wanted is watched, the rest is free.

    Channels, for B images: logits and probabilities float32 (B, K); label int64 (B,), that of the largest
    logit; text (B,) such as "7 (0.98)"; loss float32 (B,) if the module has one; activation/NAME
    float32 (B, ...), the output of each named submodule; hidden_last float32 (B, D), the input of the
    linear layer that runs last, or the logits if none can be watched; magnitude float32 (B,), the
    largest absolute value of all outputs and activations, inf if one is NaN; nonfinite (B,) the
    first of them, in order of execution, that was NaN or infinite, or ''.

    Attributes:
        classes: The names of the K labels; numbers if none were given.
        margin_gradients: See _margin_gradients; None if the module cannot be differentiated.

    Raises:
        TargetError: The module cannot be such a target.
    """

    info = TargetInfo()

    def __init__(self, module: nn.Module, space: BoxSpace, name: str, classes: Sequence[str] = ()) -> None:
        if not space.image:
            raise TargetError(f"{name}: the shape of images is (height, width, 1 or 3), not {space.shape}")
        self.module, self.space, self.name = frozen(module, name), space, name
        self._copies = False  # whether the module writes into its input
        probabilities, loss, labels = self._probe()
        if classes and len(classes) != labels:
            raise TargetError(f"{name}: {len(classes)} classes are named, but the module has {labels}")
        self.classes = tuple(classes or map(str, range(labels)))
        self._own = probabilities
        self._parts, self._last = self._inside()
        self.channels = CHANNELS | {ACTIVATION + part for part in self._parts} | ({"loss"} if loss else set())
        self.identity = fingerprint(module, f"({space!r},)")
        self._names = np.array(self.classes, dtype=object)
        self._shares = np.array([*(f" ({i / 100:.2f})" for i in range(101)), " (nan)"], dtype=object)
        self.margin_gradients: Gradients | None = self._margin_gradients if self._differentiable() else None

    def like(self, module: nn.Module, name: str) -> "ImageTarget":
        """Return the same target with another module, such as a twin."""
        return ImageTarget(module, self.space, name, self.classes)

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every image."""
        rows, kept, peaks = len(batch), dict[str, Tensor](), Peaks(len(batch))
        extremes = bool(wants & _EXTREMES)

        def watch(part: str, given: tuple[Any, ...], output: Any) -> None:
            if extremes and type(self._parts[part]) is not nn.Sequential:  # its last part was seen already
                peaks.add(part, output)
            if ACTIVATION + part in wants:  # copied, since the next layer may work in place
                kept[ACTIVATION + part] = next(per_row(output, rows)).float().clone()
            if part == self._last and "hidden_last" in wants:
                kept["hidden_last"] = next(per_row(given, rows)).flatten(1).float().clone()

        with watching(self._watched(wants), watch):
            outputs = self._answer(self._images(batch))
        logits = outputs["logits"].float()
        trace: dict[str, Array] = {name: value.numpy() for name, value in kept.items()}
        trace["logits"] = logits.numpy()
        if wants & {"probabilities", "text"}:
            shown = outputs["probabilities"].float() if self._own else logits.softmax(dim=1)
            trace["probabilities"] = shown.numpy()
        if wants & {"label", "text"}:
            trace["label"] = trace["logits"].argmax(axis=1)
        if "text" in wants:
            trace["text"] = self._texts(trace["label"], trace["probabilities"])
        if "loss" in wants:
            trace["loss"] = outputs["loss"].float().numpy()
        if "hidden_last" in wants and not self._last:
            trace["hidden_last"] = trace["logits"]
        if extremes:
            for name, value in outputs.items():
                peaks.add(name, value)
            trace |= peaks.trace()
        return {name: trace[name] for name in wants}

    def _watched(self, wants: frozenset[str]) -> dict[str, nn.Module]:
        """Return the submodules that must be watched for the wanted channels."""
        if wants & _EXTREMES:
            return self._parts
        last = self._last if "hidden_last" in wants else ""
        return {n: part for n, part in self._parts.items() if n == last or ACTIVATION + n in wants}

    def _images(self, batch: Batch) -> Tensor:
        """Return images (B, C, H, W), contiguous, since a module may call .view() on them."""
        values = inputs(batch)
        rows, height, width, channels = values.shape
        if channels > 1:
            return values.permute(0, 3, 1, 2).contiguous()
        images = values.view(rows, 1, height, width)
        return images.clone() if self._copies else images

    def _answer(self, images: Tensor) -> dict[str, Tensor]:
        """Return the module's outputs by name; raise TargetError if there are no logits."""
        given = self.module(images)
        if isinstance(given, Mapping):
            items: Any = given.items()
        else:
            several = given if isinstance(given, tuple | list) else (given,)
            items = ((f"output {i}" if i > 1 else "logits", value) for i, value in enumerate(several, 1))
        named = {str(name): value for name, value in items if isinstance(value, Tensor)}
        if "logits" not in named:
            shown = list(given) if isinstance(given, Mapping) else type(given).__name__
            raise TargetError(
                f"{self.name}: the module gives {shown}; it must give a tensor of logits, a tuple that begins"
                " with one, or a mapping that has it as 'logits'"
            )
        return named

    def _texts(self, label: IntArray, probabilities: FloatArray) -> Array:
        share = probabilities[np.arange(len(label)), label]
        with np.errstate(invalid="ignore"):
            hundredths = np.rint(np.clip(share, 0, 1) * 100)
        places = np.where(np.isfinite(share), hundredths, 101).astype(np.int64)
        return self._names[label] + self._shares[places]

    # -- found out at the start --

    @torch.inference_mode()
    def _probe(self) -> tuple[bool, bool, int]:
        """Return whether the module gives probabilities and a loss, and how many classes it has."""
        images = self._images(examples(self.space, 2))
        outputs, self._copies = answers(self.name, self._answer, images)
        shape = tuple(outputs["logits"].shape)
        if len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
            raise TargetError(
                f"{self.name}: the module gives logits of shape {shape} for images {tuple(images.shape)};"
                " it must be (2, K), with K >= 2 classes"
            )
        has = {n: tuple(value.shape) for n, value in outputs.items()}
        return has.get("probabilities") == shape, has.get("loss") == (2,), shape[1]

    @torch.inference_mode()
    def _inside(self) -> tuple[dict[str, nn.Module], str]:
        """Return the submodules whose output has something for each row, and the linear one that ran last."""
        rows, parts = 3, submodules(self.module)
        seen: dict[str, nn.Module] = {}
        last = ""

        def watch(part: str, given: tuple[Any, ...], output: Any) -> None:
            nonlocal last
            if any(True for _ in per_row(output, rows)):
                seen[part] = parts[part]
                linear = "Linear" in type(parts[part]).__name__  # quantized layers are called that, too
                last = part if linear and any(True for _ in per_row(given, rows)) else last

        with watching(parts, watch):
            self._answer(self._images(examples(self.space, rows)))
        return seen, last

    def _differentiable(self) -> bool:
        """Return whether two rows have a gradient that is not 0 everywhere, as rounding makes it."""
        try:
            with warnings.catch_warnings(action="ignore"):  # kernels without a gradient warn of that
                found = self._margin_gradients(examples(self.space, 2), np.zeros(2, np.int64))[1]
            return bool(found.any())
        except Exception:  # quantized kernels, numpy inside: whatever it is, there is no gradient
            return False

    def _margin_gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return log p[label] less the best other log p, float32 (B,), and its gradients (B, H, W, C)."""
        images = self._images(batch).clone().requires_grad_()
        logits = self._answer(images.clone() if self._copies else images)["logits"].float()
        chosen = torch.from_numpy(np.asarray(labels, np.int64))[:, None]
        others = logits.scatter(1, chosen, -torch.inf).max(dim=1).values
        margins = logits.gather(1, chosen)[:, 0] - others  # the softmax's denominator is the same in both
        (gradients,) = torch.autograd.grad(margins.sum(), images)
        return margins.detach().numpy(), gradients.permute(0, 2, 3, 1).contiguous().numpy()


class Exported(nn.Module):
    """Run an exported program as a module; batches are split or padded to the sizes that it takes."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()
        self.training = False  # its mode when it was exported is part of the program
        self.least, self.most = _batches(program)

    def train(self, mode: bool = True) -> "Exported":
        """Do nothing, since a program cannot be changed."""
        return self

    def forward(self, x: Tensor) -> Any:
        """Return what the program gives for x (B, ...)."""
        if self.least <= len(x) <= self.most:
            return self.program(x)
        parts = []
        for part in torch.split(x, self.most):
            missing = max(0, self.least - len(part))
            filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
            parts.append(self.program(filled))

        def join(*each: Any) -> Any:
            joins = isinstance(each[0], Tensor) and each[0].ndim
            return torch.cat(each)[: len(x)] if joins else each[0]

        return pytree.tree_map(join, *parts)


def _batches(program: torch.export.ExportedProgram) -> tuple[int, int]:
    """Return the smallest and the largest batch that the program takes."""
    many = 2**31 - 1
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    first: Any = values.get(next(iter(program.graph_signature.user_inputs), ""))
    size: Any = first.shape[0] if isinstance(first, Tensor) else many
    if isinstance(size, int):
        return (size, size) if size < many else (1, many)
    reach = program.range_constraints.get(size.node.expr)
    return (max(1, int(reach.lower)), int(min(reach.upper, many))) if reach else (1, many)


def load_file(path: Path, *, trust: bool = False) -> nn.Module:
    """Return the module in a TorchScript file or an exported program, whatever the file is called.

    An exported program can run any code when it is read: torch reads the pickles of its sample inputs and
    constants, evaluates its shapes and guards as Python, and calls what it names below ``torch``. TorchScript
    is a language of its own, which cannot call Python, and its pickles hold plain data only; it needs trust
    only if it names one of the few functions that read or write files.

    Args:
        path: The file.
        trust: Whether a file that can do harm may be read.

    Raises:
        TargetError: It is a program that is not trusted, or another file, above all a pickled module, which
            can run code when it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name.partition("/")[2] for name in archive.namelist()]
            codes = [archive.read(one) for one in archive.infolist() if "/code/" in one.filename.lower()]
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception:  # damage can make zipfile raise anything
        inside, codes = [], []
    script = any(name.startswith("code/") for name in inside)
    program = any(name.startswith(("models/", "serialized_exported_program")) for name in inside)
    if not (script or program):
        checkpoint = ", but a checkpoint, weights without what runs them" if "data.pkl" in inside else ""
        raise TargetError(
            f"{path} is neither TorchScript nor an exported program{checkpoint}; make a folder of a language"
            f" model's checkpoint with {import_command(path)}, save another model with torch.export.save, or"
            " name a function that makes it: model.py:factory"
        )
    harm = "is an exported program, which can run code when it is read" if program else ""
    harm = harm or ("is TorchScript that reads or writes files" if any(map(_FILES.search, codes)) else "")
    if harm and not trust:
        raise TargetError(f"{path} {harm}; if you trust its maker, pass --trust-remote-code")
    with quiet(), explaining(f"{path} cannot be loaded"):
        if program:
            return Exported(torch.export.load(io.BytesIO(path.read_bytes())))
        return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
