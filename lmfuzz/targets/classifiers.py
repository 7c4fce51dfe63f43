"""The image classifiers of the papers: TensorFuzz's perceptron, and LeNet-1 and LeNet-5 as in DeepXplore."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

# By architecture: the kernels of each 5 x 5 convolution, and the units of each hidden dense layer.
LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mlp": ((), (200, 100)),
    "lenet1": ((4, 12), ()),
    "lenet5": ((6, 16), (120, 84)),
}


class ClassifierConfig(BaseModel):
    """Describe a network: its architecture, what it reads (height, width, channels), and its loss.

    Every network takes pixels x in [0, 1]; the first layer of a centred one computes 2x - 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lmfuzz-classifier"] = "lmfuzz-classifier"
    version: Literal[1] = 1
    architecture: Literal["mlp", "lenet1", "lenet5"]
    loss: Literal["safe", "unsafe"] = "safe"
    centred: bool = False
    shape: tuple[int, ...] = (28, 28, 1)
    classes: int = Field(default=10, ge=2, le=2**20)

    @field_validator("shape")
    @classmethod
    def _image(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3 or shape[2] not in (1, 3) or not all(4 <= side <= 4096 for side in shape[:2]):
            raise ValueError(
                "must be [height, width, channels], sides of 4 to 4096 pixels and 1 or 3 channels,"
                f" not {list(shape)!s:.80}"
            )
        return shape


class Centre(nn.Module):
    """Map pixels in [0, 1] to [-1, 1], the range that TensorFuzz's networks read."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 2x - 1, elementwise."""
        return 2 * x - 1


class Exponential(nn.Module):
    """Compute exp as a layer, so that its activation shows how near to overflow it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Return exp(x), elementwise."""
        return x.exp()


class Classifier(nn.Module):
    """Classify images: ReLU after every layer but the last, max pooling after each convolution."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = _layers(config)
        self.exponential = Exponential() if config.loss == "unsafe" else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return logits (B, classes) of images (B, C, H, W) in [0, 1].

        With the unsafe loss, return logits and probabilities (B, classes) and the loss (B,) of ``labels``
        (B,), or of the predicted labels if none are given. Probabilities are exp(z) / sum(exp(z)) and the
        loss is -sum(y * log(probabilities)) in the precision of the input, which is the fault that TensorFuzz
        plants: float32's exp overflows beyond 88.7, and a probability is 0 some 104 below the largest z.
        """
        logits: Tensor = self.layers(x)
        if self.exponential is None:
            return logits
        powers = self.exponential(logits)
        probabilities = powers / powers.sum(dim=1, keepdim=True)
        labels = logits.argmax(dim=1) if labels is None else labels
        # Whatever the label is, 0 * log(0) = NaN shows an underflow of any class.
        wanted = nn.functional.one_hot(labels, self.config.classes).to(logits.dtype)
        loss = -(wanted * probabilities.log()).sum(dim=1)
        return {"logits": logits, "probabilities": probabilities, "loss": loss}


def _layers(config: ClassifierConfig) -> nn.Sequential:
    height, width, channels = config.shape
    convolutions, dense = LAYERS[config.architecture]
    layers = nn.Sequential()
    if config.centred:
        layers.add_module("centre", Centre())
    for i, kernels in enumerate(convolutions, start=1):
        layers.add_module(f"conv{i}", nn.Conv2d(channels, kernels, kernel_size=5, padding=2))  # same size
        layers.add_module(f"conv{i}_relu", nn.ReLU())
        layers.add_module(f"pool{i}", nn.MaxPool2d(2))
        height, width, channels = height // 2, width // 2, kernels
    layers.add_module("flatten", nn.Flatten())
    features = height * width * channels
    for i, units in enumerate(dense, start=1):
        layers.add_module(f"dense{i}", nn.Linear(features, units))
        layers.add_module(f"dense{i}_relu", nn.ReLU())
        features = units
    layers.add_module("output", nn.Linear(features, config.classes))
    return layers
