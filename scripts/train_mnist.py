#!/usr/bin/env python3
"""Train the papers' networks on MNIST and write each as a checkpoint folder with a card.

FOLDER gets one subfolder for each network, unsafe, safe, lenet1 and lenet5; with --only it is that
network's checkpoint itself. What is trained depends on the initialisation's number and nothing else.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from environment import enter

if __name__ == "__main__":
    enter()

import click
import torch
from torch import Tensor, nn, optim

from lmfuzz.errors import UsageError
from lmfuzz.inputs.datasets import DATA
from lmfuzz.inputs.images import read_images
from lmfuzz.targets import checkpoint
from lmfuzz.targets.classifiers import Classifier, ClassifierConfig

Labelled = tuple[Tensor, Tensor]  # images float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,)
OVERFLOW = 88.72  # float32's exp is infinite from here on
UNDERFLOW = 103.97  # and 0 from here on below 0


@dataclass(frozen=True)
class Recipe:
    """One network and how it is trained; ``settings`` says in words what the functions do."""

    config: ClassifierConfig
    kernels: Callable[[Tensor], object]
    optimiser: Callable[[Iterable[nn.Parameter]], optim.Optimizer]
    batch: int
    steps: int
    settings: str
    about: str


def uniform(kernel: Tensor) -> None:
    """TensorFuzz's large initial kernels, made for trouble with numbers."""
    nn.init.uniform_(kernel, -0.25, 0.25)


def truncated_normal(kernel: Tensor) -> None:
    """TensorFuzz's initial kernels of the network that it quantises."""
    nn.init.trunc_normal_(kernel, std=0.01, a=-0.02, b=0.02)


def perceptron(loss: str, kernels: Callable[[Tensor], object], words: str, about: str) -> Recipe:
    """TensorFuzz's 784-200-100-10 with its settings (section 4 and the published code)."""
    config = ClassifierConfig(architecture="mlp", loss=loss, centred=True)
    words = f"kernels {words}, biases 0; SGD, rate 0.01; pixels as 2x - 1"
    return Recipe(config, kernels, lambda p: optim.SGD(p, lr=0.01), 100, 35_000, words, about)


def lenet(architecture: str, about: str) -> Recipe:
    """DeepXplore's LeNets with its settings: Adadelta as Keras had it, ten epochs in batches of 256."""
    words = "kernels Glorot uniform, biases 0; Adadelta, rate 1, rho 0.95, epsilon 1e-7"
    return Recipe(
        ClassifierConfig(architecture=architecture), nn.init.xavier_uniform_,
        lambda p: optim.Adadelta(p, lr=1.0, rho=0.95, eps=1e-7), 256, 2_350, words, about,
    )  # fmt: skip


RECIPES = {
    "unsafe": perceptron(
        "unsafe", uniform, "U(-0.25, 0.25)",
        "784-200-100-10 perceptron, ReLU, whose softmax and cross-entropy are computed as they are written:"
        " TensorFuzz's network with numerical errors",
    ),
    "safe": perceptron(
        "safe", truncated_normal, "N(0, 0.01) cut off at 0.02",
        "784-200-100-10 perceptron, ReLU, safe cross-entropy: the network that TensorFuzz quantises",
    ),
    "lenet1": lenet(
        "lenet1", "LeNet-1: convolutions 4 and 12 of 5x5, both with ReLU and 2x2 max pooling; dense 10"
    ),
    "lenet5": lenet(
        "lenet5",
        "LeNet-5: convolutions 6 and 16 of 5x5, both with ReLU and 2x2 max pooling; dense 120, 84 (ReLU), 10",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a network does with the test images."""

    accuracy: float
    largest: float  # largest logit
    spread: float  # largest distance between two logits of one image
    nonfinite: int  # images with any output that is not finite

    def lines(self) -> dict[str, str]:
        """In words, by what was measured."""
        return {
            "test accuracy": f"{self.accuracy:.2%}",
            "largest logit on a test image": f"{self.largest:.1f} (exp overflows from {OVERFLOW})",
            "largest distance between two logits": f"{self.spread:.1f} (a class underflows from {UNDERFLOW})",
            "test images with non-finite outputs": str(self.nonfinite),
        }


def labelled(source: str) -> Labelled:
    """A set of MNIST's; UsageError when its images are not 28x28, grey and labelled 0 to 9."""
    images = read_images([source])
    if images.values.shape[1:] != (28, 28, 1):
        raise UsageError(f"the images of {source} are {images.size}; MNIST's are 28x28")
    if images.labels is None or not set(images.labels.tolist()) <= set(range(10)):
        raise UsageError(f"the images of {source} must have labels, 0 to 9, in a file beside them")
    values = torch.from_numpy(images.values).permute(0, 3, 1, 2)
    return values.float() / 255, torch.from_numpy(images.labels)


def train(recipe: Recipe, images: Tensor, labels: Tensor, initialisation: int) -> Classifier:
    """The network after the recipe's steps; FloatingPointError at the first loss that is not finite.

    TensorFuzz's code goes on then, and every weight is NaN from the next step on: nothing is lost here.
    """
    torch.manual_seed(initialisation)
    model = Classifier(recipe.config)
    for parameter in model.parameters():
        (recipe.kernels if parameter.ndim > 1 else nn.init.zeros_)(parameter)
    optimiser = recipe.optimiser(model.parameters())
    batches: list[Tensor] = []
    for step in range(1, recipe.steps + 1):
        batches = batches or list(torch.randperm(len(images)).split(recipe.batch))
        rows = batches.pop()
        out = model(images[rows], labels[rows])
        loss = out["loss"].mean() if isinstance(out, dict) else nn.functional.cross_entropy(out, labels[rows])
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is {loss.item()} in step {step} of {recipe.steps}")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.inference_mode()
def measure(model: Classifier, images: Tensor, labels: Tensor) -> Measured:
    """All that is said of a network, on the test images."""
    out = model(images)
    outputs = out if isinstance(out, dict) else {"logits": out}
    logits = outputs["logits"]
    finite = torch.stack([o.isfinite().reshape(len(o), -1).all(dim=1) for o in outputs.values()]).all(dim=0)
    return Measured(
        accuracy=(logits.argmax(dim=1) == labels).float().mean().item(),
        largest=logits.max().item(),
        spread=(logits.amax(dim=1) - logits.amin(dim=1)).max().item(),
        nonfinite=int((~finite).sum()),
    )


def card(name: str, recipe: Recipe, measured: Measured, initialisation: int, parameters: int) -> str:
    """The README of a checkpoint folder."""
    steps = f" --steps {recipe.steps}" if recipe.steps != RECIPES[name].steps else ""
    rows = {
        "architecture": f"{recipe.about}; {parameters} parameters, float32",
        "training": f"{recipe.steps} steps in batches of {recipe.batch} of MNIST's training images",
        "settings": f"{recipe.settings}; initialisation {initialisation}",
        **measured.lines(),
        "made by": f"`scripts/train_mnist.py --only {name} --initialisation {initialisation}{steps} FOLDER`,"
        f" torch {torch.__version__.partition('+')[0]}, one thread",
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return f"# Model card: `{name}`\n\n| | |\n|---|---|\n{table}"


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--data", envvar=DATA, type=click.Path(exists=True, file_okay=False), metavar="FOLDER",
              help=f"the folder that has mnist/ with the four IDX files  [default: {DATA}]")  # fmt: skip
@click.option("--only", type=click.Choice(list(RECIPES)), help="train this network alone")
@click.option("--initialisation", type=click.IntRange(0), default=0, show_default=True, metavar="N")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="in place of the papers' number")
def main(folder: Path, data: str | None, only: str | None, initialisation: int, steps: int | None) -> None:
    torch.set_num_threads(1)
    if data:
        os.environ[DATA] = data  # where images look for it
    try:
        training, test = labelled("mnist:train"), labelled("mnist")
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    for name in [only] if only else RECIPES:
        recipe = replace(RECIPES[name], steps=steps or RECIPES[name].steps)
        try:
            model = train(recipe, *training, initialisation)
        except FloatingPointError as error:
            raise click.ClickException(
                f"{name}, initialisation {initialisation}: {error}, and all weights would be NaN after it;"
                " nothing was written, train another initialisation"
            ) from None
        measured = measure(model, *test)
        place = folder if only else folder / name
        checkpoint.save(model, place)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        text = card(name, recipe, measured, initialisation, parameters)
        (place / "README.md").write_text(text, encoding="utf-8")
        said = "; ".join(f"{key} {value}" for key, value in measured.lines().items())
        print(
            f"{name}, initialisation {initialisation}, {recipe.steps} steps: {said}; written to {place}",
            flush=True,
        )


if __name__ == "__main__":
    main()
