"""Image classifiers as targets: channels, watching, gradients, files, and what cannot be a target."""

import io
import sqlite3
import warnings
import zipfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.shell import Shell
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import Differentiable
from lmfuzz.spec import Spec
from lmfuzz.targets.classifiers import Classifier, ClassifierConfig
from lmfuzz.targets.image import Exported, ImageTarget, load_file
from lmfuzz.targets.loading import load_target

GREY, COLOUR = BoxSpace((4, 5, 1), step=1 / 255), BoxSpace((4, 5, 3))
BASE = {"text", "logits", "probabilities", "label", "hidden_last", "magnitude", "nonfinite"}


class Small(nn.Module):
    """A convolution, a rectifier in place and two dense layers."""

    def __init__(self, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 2, 3, padding=1)
        self.rectify = nn.ReLU(inplace=True)
        self.dense = nn.Linear(40, 6)
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(6, classes))

    def forward(self, x):
        x = self.rectify(self.conv(x))
        return self.head(self.dense(x.view(x.shape[0], -1)))


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class Fragile(nn.Module):
    """NaN in the middle for dark images, and finite again behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm, self.mend = Log(), Mend()

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3)) - 0.3
        good = self.mend(self.logarithm(mean))
        return torch.stack([good, -good], dim=1)


class Mend(nn.Module):
    def forward(self, x):
        return x.nan_to_num()


class As(nn.Module):
    """What ``show`` makes of the logits of a dense layer."""

    def __init__(self, show, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.dense, self.show = nn.Linear(20, classes), show

    def forward(self, x):
        return self.show(self.dense(x.flatten(1)))


def small(space: BoxSpace = GREY, classes: int = 3) -> Small:
    return Small(space.shape[2], classes).eval()


def rows(space: BoxSpace, count: int = 7):
    rng = np.random.default_rng(5)
    return space.batch(space.settle(rng.uniform(0, 1, (count, *space.shape))))


def seen(target: ImageTarget, batch, *wants: str):
    return target.run(batch, frozenset(wants))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def plain(module: nn.Module, batch) -> torch.Tensor:
    """The logits as one would compute them without a target."""
    with torch.no_grad():
        return module(pixels(batch))


def pixels(batch) -> torch.Tensor:
    count, height, width, channels = batch.data.shape
    return torch.tensor(batch.data).permute(0, 3, 1, 2).reshape(-1).view(count, channels, height, width)


@pytest.mark.parametrize("space", [GREY, COLOUR])
def test_channels_are_what_the_module_computes(space):
    module, batch = small(space), rows(space)
    target = ImageTarget(module, space, "small")
    trace = target.run(batch, target.channels)
    logits = plain(module, batch)
    assert trace.keys() == target.channels
    np.testing.assert_allclose(trace["logits"], logits, rtol=1e-6)
    np.testing.assert_allclose(trace["probabilities"], logits.softmax(1), rtol=1e-5)
    np.testing.assert_array_equal(trace["label"], logits.argmax(1))
    with torch.no_grad():
        hidden = torch.tanh(module.dense(module.conv(pixels(batch)).relu().flatten(1)))
    np.testing.assert_allclose(trace["hidden_last"], hidden, rtol=1e-5)
    kinds = {"logits": "float32", "label": "int64", "hidden_last": "float32"}
    assert {name: trace[name].dtype.name for name in kinds} == kinds
    best = logits.softmax(1).amax(1)
    expected = [f"{label} ({share:.2f})" for label, share in zip(logits.argmax(1), best, strict=True)]
    assert trace["text"].tolist() == expected
    assert (trace["nonfinite"] == "").all()


def test_activations_are_those_before_the_next_layer_works_in_place():
    module, batch = small(COLOUR), rows(COLOUR)
    target = ImageTarget(module, COLOUR, "small")
    names = {"conv", "rectify", "dense", "head", "head.0", "head.1"}
    assert target.channels == BASE | {f"activation/{name}" for name in names}
    trace = seen(target, batch, "activation/conv", "activation/rectify", "activation/head", "logits")
    with torch.no_grad():
        conv = module.conv(pixels(batch))
    np.testing.assert_allclose(trace["activation/conv"], conv, rtol=1e-5, atol=1e-6)
    assert (trace["activation/conv"] < 0).any()
    np.testing.assert_allclose(trace["activation/rectify"], conv.relu(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trace["activation/head"], trace["logits"])


def test_magnitude_is_the_largest_of_all_activations_and_outputs():
    target, batch = ImageTarget(small(), GREY, "small"), rows(GREY)
    trace = target.run(batch, target.channels)
    inside = [trace[name] for name in target.channels if name.startswith("activation/")]
    largest = np.max([np.abs(a.reshape(len(batch), -1)).max(1) for a in [*inside, trace["logits"]]], axis=0)
    np.testing.assert_array_equal(trace["magnitude"], largest)


def test_nan_in_the_middle_is_named_though_the_output_is_finite():
    target = ImageTarget(Fragile().eval(), GREY, "fragile")
    batch = GREY.batch(np.stack([np.full(GREY.shape, v, np.float32) for v in (0.9, 0.1, 0.5)]))
    trace = seen(target, batch, "nonfinite", "magnitude", "logits")
    assert trace["nonfinite"].tolist() == ["", "logarithm", ""]
    assert np.isinf(trace["magnitude"]).tolist() == [False, True, False]
    assert np.isfinite(trace["logits"]).all()


def test_the_unsafe_loss_overflows_in_its_exponential():
    config = ClassifierConfig(architecture="mlp", loss="unsafe")
    torch.manual_seed(3)
    module = Classifier(config).eval()
    with torch.no_grad():
        module.layers.output.bias[4] = 80.0
        module.layers.output.weight[4] *= 0
        module.layers.output.weight[4, :] = 5.0
    space = BoxSpace((28, 28, 1))
    target = ImageTarget(module, space, "unsafe")
    assert {"loss", "activation/exponential"} <= target.channels
    batch = space.batch(np.stack([np.full(space.shape, v, np.float32) for v in (0.0, 1.0)]))
    trace = target.run(batch, target.channels)
    with np.errstate(over="ignore"):
        over = np.exp(trace["logits"].max(1)) == np.inf
    assert over.tolist() == (trace["nonfinite"] == "exponential").tolist()
    assert over.any()
    assert np.isnan(trace["loss"][over]).all()
    assert np.isnan(trace["probabilities"][over]).any(axis=1).all()
    assert all(text == "4 (nan)" for text in trace["text"][over])


def test_outputs_that_are_not_finite_are_named_too():
    module = As(lambda z: {"logits": z, "loss": (z[:, 0] * 0).log() * 0}).eval()
    target = ImageTarget(module, GREY, "log of 0")
    trace = seen(target, rows(GREY), "nonfinite", "loss", "text")
    assert (trace["nonfinite"] == "loss").all()
    assert np.isnan(trace["loss"]).all()


@pytest.mark.parametrize("show", [lambda z: (z, z * 2), lambda z: [z], lambda z: {"logits": z, "aux": None}])
def test_logits_in_a_tuple_a_list_or_a_mapping(show):
    module, batch = As(show).eval(), rows(GREY)
    with torch.no_grad():
        expected = module.dense(torch.tensor(batch.data).flatten(1))
    target = ImageTarget(module, GREY, "wrapped")
    np.testing.assert_allclose(seen(target, batch, "logits")["logits"], expected, rtol=1e-5)
    assert "loss" not in target.channels


def test_its_own_probabilities_and_names_of_classes():
    half = As(lambda z: {"logits": z, "probabilities": torch.full_like(z, 0.5)}).eval()
    target = ImageTarget(half, GREY, "half", classes=("cat", "dog", "owl"))
    trace = seen(target, rows(GREY), "probabilities", "text", "label")
    assert (trace["probabilities"] == 0.5).all()
    assert trace["text"].tolist() == [f"{('cat', 'dog', 'owl')[i]} (0.50)" for i in trace["label"]]
    with pytest.raises(TargetError, match="2 classes are named, but the module has 3"):
        ImageTarget(half, GREY, "half", classes=("cat", "dog"))


def test_half_precision_inside_is_float32_outside():
    target = ImageTarget(As(lambda z: z.half()).eval(), GREY, "half")
    trace = target.run(rows(GREY), target.channels)
    assert {trace[name].dtype for name in ("logits", "probabilities", "magnitude")} == {np.dtype(np.float32)}


def test_without_a_linear_layer_the_logits_are_the_last_hidden_state():
    target = ImageTarget(Fragile().eval(), GREY, "fragile")
    trace = seen(target, rows(GREY), "hidden_last", "logits")
    np.testing.assert_array_equal(trace["hidden_last"], trace["logits"])


def test_nothing_is_watched_that_is_not_wanted(monkeypatch):
    module = small()
    target = ImageTarget(module, GREY, "small")
    hooked = []
    register = nn.Module.register_forward_hook
    monkeypatch.setattr(
        nn.Module, "register_forward_hook", lambda self, hook: hooked.append(self) or register(self, hook)
    )
    seen(target, rows(GREY), "logits", "label", "probabilities", "text")
    assert hooked == []
    seen(target, rows(GREY), "hidden_last")
    assert hooked == [module.head[1]]
    seen(target, rows(GREY), "activation/conv")
    assert hooked[1:] == [module.conv]


def test_hooks_are_gone_after_a_run_and_after_an_error():
    module = small()
    target = ImageTarget(module, GREY, "small")
    wants = target.channels
    target.run(rows(GREY), wants)
    assert hooks(module) == 0
    module.head.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        target.run(rows(GREY), wants)
    assert hooks(module) == 0


def test_hooks_are_gone_when_one_cannot_be_put_on(monkeypatch):
    module = small()
    target = ImageTarget(module, GREY, "small")

    def refuse(hook):
        raise RuntimeError("no hooks here")

    monkeypatch.setattr(module.dense, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hooks here"):
        seen(target, rows(GREY), "magnitude")
    assert hooks(module) == 0


def test_hooks_of_others_stay():
    module = small()
    counted = []
    module.conv.register_forward_hook(lambda *_: counted.append(1))
    target = ImageTarget(module, GREY, "small")
    before = len(counted)
    seen(target, rows(GREY), "magnitude")
    assert len(counted) == before + 1
    assert hooks(module) == 1


def test_rows_keep_their_values_whatever_the_module_does_to_its_input():
    module = As(lambda z: z).eval()
    module.register_forward_pre_hook(lambda _, given: (given[0].sub_(0.5),))
    target, batch = ImageTarget(module, GREY, "in place"), rows(GREY)
    before = batch.data.copy()
    one, two = (seen(target, batch, "logits")["logits"] for _ in range(2))
    np.testing.assert_array_equal(batch.data, before)
    np.testing.assert_array_equal(one, two)


def test_rows_that_cannot_be_written_are_read():
    target, batch = ImageTarget(small(), GREY, "small"), rows(GREY)
    expected = seen(target, batch, "logits")["logits"]
    batch.data.flags.writeable = False
    np.testing.assert_array_equal(seen(target, batch, "logits")["logits"], expected)


@pytest.mark.parametrize("space", [GREY, COLOUR])
def test_gradients_are_those_of_finite_differences(space):
    target, batch = ImageTarget(small(space), space, "small"), rows(space)
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    values, gradients = target.margin_gradients(batch, labels)
    logs = np.log(seen(target, batch, "probabilities")["probabilities"].astype(np.float64))
    own = logs[np.arange(7), labels]
    logs[np.arange(7), labels] = -np.inf
    np.testing.assert_allclose(values, own - logs.max(1), rtol=1e-4, atol=1e-5)
    assert gradients.shape == batch.data.shape
    step = 1e-3 * np.sign(gradients)
    ahead, _ = target.margin_gradients(batch.changed(batch.data + step), labels)
    behind, _ = target.margin_gradients(batch.changed(batch.data - step), labels)
    slope = (gradients * step).sum(axis=(1, 2, 3))
    np.testing.assert_allclose((ahead - behind) / 2, slope, rtol=0.05)


def test_no_gradients_where_there_are_none():
    assert not isinstance(ImageTarget(As(torch.round).eval(), GREY, "round"), Differentiable)
    target = ImageTarget(As(lambda z: torch.from_numpy(z.numpy() * 2)).eval(), GREY, "numpy inside")
    assert not isinstance(target, Differentiable)


def test_identity_tells_weights_and_structure_and_space_apart():
    def identity(module, space=GREY):
        return ImageTarget(module, space, "any").identity

    one, other = small(), small()
    assert identity(one) == identity(other)
    with torch.no_grad():
        other.conv.bias[0] += 1e-6
    assert identity(one) != identity(other)
    assert identity(one) != identity(small(), BoxSpace((4, 5, 1)))
    safe, unsafe = (
        Classifier(ClassifierConfig(architecture="mlp", shape=GREY.shape, loss=loss)).eval()
        for loss in ("safe", "unsafe")
    )
    unsafe.load_state_dict(safe.state_dict())
    assert identity(safe) != identity(unsafe)
    normed = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(20, 2)).eval()
    first = identity(normed)
    normed[0].num_batches_tracked += 1  # an integer of no axis
    assert identity(normed) != first


@pytest.mark.parametrize(
    ("make", "space", "sentence"),
    [
        (lambda: small().train(), GREY, r"training mode.*call .eval\(\)"),
        (lambda: _with(small(), "extra", nn.Dropout()), GREY, "training mode"),
        (lambda: As(lambda z: z + torch.rand_like(z)).eval(), GREY, "different logits each time"),
        (small, COLOUR, r"shape \(2, 3, 4, 5\): RuntimeError: .*channels"),
        (lambda: small(classes=1), GREY, r"logits of shape \(2, 1\) for images \(2, 1, 4, 5\)"),
        (lambda: As(lambda z: z.mean(1)).eval(), GREY, r"logits of shape \(2,\)"),
        (lambda: As(lambda z: {"scores": z}).eval(), GREY, r"gives \['scores'\]; it must"),
        (lambda: As(lambda z: "cat").eval(), GREY, "gives str; it must"),
        (small, BoxSpace((20,)), r"the shape of images is \(height, width, 1 or 3\), not \(20,\)"),
    ],
)
def test_what_cannot_be_a_target_is_told_in_one_sentence(make, space, sentence):
    with pytest.raises(TargetError, match=f"(?s)^broken.*{sentence}") as caught:
        ImageTarget(make(), space, "broken")
    assert "\n" not in str(caught.value)


def _with(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    module.add_module(name, part)
    return module


def test_the_executor_isolates_rows_on_which_the_module_raises():
    def picky(z):
        if z.abs().max() > 19:
            raise ValueError("too bright")
        return z

    module = As(picky).eval()
    with torch.no_grad():
        module.dense.weight.fill_(1.0)
    target = ImageTarget(module, BoxSpace((4, 5, 1)), "picky")  # noise is dark enough
    batch = GREY.batch(np.stack([np.full(GREY.shape, v, np.float32) for v in (0.2, 1.0, 0.4)]))
    trace = LocalExecutor(target).run(batch, frozenset({"label", "magnitude"}))
    assert [bool(error) for error in trace["crash"]] == [False, True, False]
    assert hooks(module) == 0


# -- files ----------------------------------------------------------------------------------------


def scripted(module: nn.Module, path: Path, trace=None) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        compiled = torch.jit.script(module) if trace is None else torch.jit.trace(module, trace)
        torch.jit.save(compiled, path)
    return path


def exported(module: nn.Module, path: Path, batch: int, **reach: int) -> Path:
    example = torch.zeros(batch, 1, 4, 5)
    shapes = ({0: torch.export.Dim("rows", **reach)},) if reach else None
    with path.open("wb") as file:
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), file)
    return path


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ts"])
def test_torchscript_gives_the_same_logits(tmp_path, name):
    batch = rows(GREY)
    module = load_file(scripted(small(), tmp_path / name))
    target = ImageTarget(module, GREY, name)
    assert target.channels == BASE
    trace = target.run(batch, target.channels)
    np.testing.assert_allclose(trace["logits"], plain(small(), batch), rtol=1e-5)
    np.testing.assert_array_equal(trace["hidden_last"], trace["logits"])
    np.testing.assert_array_equal(trace["magnitude"], np.abs(trace["logits"]).max(1))
    _, gradients = target.margin_gradients(batch, trace["label"])
    _, expected = ImageTarget(small(), GREY, "small").margin_gradients(batch, trace["label"])
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-6)
    assert ImageTarget(load_file(tmp_path / name), GREY, name).identity == target.identity


def test_torchscript_in_training_mode_is_refused(tmp_path):
    path = scripted(_with(small(), "drop", nn.Dropout()).train(), tmp_path / "model.pt")
    with pytest.raises(TargetError, match="training mode"):
        ImageTarget(load_file(path), GREY, "model.pt")


@pytest.mark.parametrize(
    ("batch", "reach"), [(1, {}), (4, {}), (2, {"min": 1, "max": 1024}), (2, {"min": 2, "max": 5})]
)
def test_exported_programs_run_any_number_of_rows(tmp_path, batch, reach):
    path = exported(small(), tmp_path / "model.pt2", batch, **reach)
    target = ImageTarget(load_file(path, trust=True), GREY, "model.pt2")
    for count in (1, 3, 4, 11):
        given = rows(GREY, count)
        logits = seen(target, given, "logits", "magnitude")["logits"]
        np.testing.assert_allclose(logits, plain(small(), given), rtol=1e-5)
    values, gradients = target.margin_gradients(rows(GREY), np.zeros(7, np.int64))
    expected = ImageTarget(small(), GREY, "small").margin_gradients(rows(GREY), np.zeros(7, np.int64))
    np.testing.assert_allclose(values, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients, expected[1], rtol=1e-4, atol=1e-6)
    assert ImageTarget(load_file(path, trust=True), GREY, "model.pt2").identity == target.identity


def test_a_program_of_one_size_joins_mappings_and_tuples(tmp_path):
    class Both(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, :3]
            return {"logits": z, "loss": z.sum(1), "mean": z.mean()}

    module = load_file(exported(Both().eval(), tmp_path / "model.pt2", 2), trust=True)
    assert isinstance(module, Exported)
    target = ImageTarget(module.eval(), GREY, "model.pt2")
    batch = rows(GREY, 5)
    trace = seen(target, batch, "logits", "loss", "magnitude")
    np.testing.assert_array_equal(trace["logits"], batch.data.reshape(5, -1)[:, :3])
    np.testing.assert_allclose(trace["loss"], trace["logits"].sum(1), rtol=1e-6)


def test_dropout_that_was_exported_is_found_out(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(20, 3)).train()
    with pytest.raises(TargetError, match="different logits each time"):
        ImageTarget(load_file(exported(module, tmp_path / "model.pt2", 2), trust=True), GREY, "model.pt2")


def test_pickles_and_other_files_are_refused(tmp_path):
    torch.save(small(), tmp_path / "pickle.pt")
    torch.save(small(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "junk.pt").write_bytes(b"not a model")
    for name in ("pickle.pt", "old.pth", "junk.pt"):
        with pytest.raises(TargetError, match=rf"{name} is neither TorchScript nor an exported program"):
            load_file(tmp_path / name)
    with pytest.raises(TargetError, match=r"none\.pt: No such file"):
        load_file(tmp_path / "none.pt")


def test_a_damaged_file_is_refused(tmp_path):
    for name, inside in (("script.pt", "model/code/x.py"), ("program.pt2", "model/models/model.json")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inside, "")
        with pytest.raises(TargetError, match=f"{name} cannot be loaded"):
            load_file(tmp_path / name, trust=True)


class Ran:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def with_member(path, ending, content):
    """Replace what ends so in an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(name.endswith(ending) for name in members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in members.items():
            archive.writestr(name, content(old) if name.endswith(ending) else old)


def pickled(ran, _):
    buffer = io.BytesIO()
    torch.save(((ran,), {}), buffer)
    return buffer.getvalue()


def test_an_exported_program_that_runs_code_needs_trust(tmp_path):
    path, sign = exported(small(), tmp_path / "model.pt2", 2, min=1, max=1024), tmp_path / "ran"
    load_file(path, trust=True)
    with_member(path, "sample_inputs/model.pt", partial(pickled, Ran(sign)))
    with pytest.raises(TargetError, match=r"model\.pt2 is an exported program.* --trust-remote-code$"):
        load_file(path)
    with pytest.raises(TargetError, match="--trust-remote-code"):
        load_target(Spec(model=str(path), shape=[4, 5, 1]))
    assert not sign.exists()
    with suppress(TargetError):
        load_file(path, trust=True)
    assert sign.exists()


def test_with_trust_a_program_is_a_target(tmp_path):
    path = exported(small(), tmp_path / "model.pt2", 2)
    found = load_target(Spec(model=str(path), shape=[4, 5, 1], trust_remote_code=True))
    assert isinstance(found, ImageTarget)


class Writes(nn.Module):
    def forward(self, x):
        torch.save(x, "written")
        return x.flatten(1)[:, :3]


def test_torchscript_that_writes_files_needs_trust(tmp_path):
    path = scripted(Writes().eval(), tmp_path / "model.pt")
    with pytest.raises(TargetError, match=r"model\.pt is TorchScript that .* files.* --trust-remote-code$"):
        load_file(path)
    assert load_file(path, trust=True)


@pytest.mark.parametrize("program", [False, True])
def test_damage_of_any_kind_is_a_target_error(tmp_path, program):
    path = tmp_path / "model.pt"
    _ = exported(small(), path, 2) if program else scripted(small(), path)
    content, damaged = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for i in range(40):
        data = bytearray(content[: len(content) * i // 40]) if i % 2 else bytearray(content)
        for at in rng.integers(len(data), size=8).tolist() if data else ():
            data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            ImageTarget(load_file(path, trust=True), GREY, "model.pt")
        except TargetError:
            damaged += 1
    assert damaged >= 20


def test_what_torch_says_of_a_damaged_program_is_not_printed(tmp_path, caplog):
    path = exported(small(), tmp_path / "model.pt2", 2)
    content = path.read_bytes()
    path.write_bytes(content[:2756] + content[:400] + content[2756:])
    caplog.clear()  # of what was said when it was made
    with pytest.raises(TargetError, match=r"model\.pt2 cannot be loaded"):
        load_file(path, trust=True)
    assert not caplog.records


def test_a_campaign_from_before_programs_needed_trust_goes_on_with_it(sh: Shell) -> None:
    exported(small(), Path("model.pt2"), 2, min=1, max=1024)
    brief = ("--shape", "4", "5", "1", "--count", "2", "--budget", "20x", "-o", "c")
    assert sh("image", "nan", "model.pt2", "--trust-remote-code", *brief).code in (0, 1)
    with closing(sqlite3.connect("c/campaign.db")) as db, db:
        query = "UPDATE meta SET value = json_set(value, '$.trust_remote_code', json('false'))"
        db.execute(f"{query} WHERE key = 'spec'")
    Path("c/campaign.toml").unlink()
    for command in (("replay", "c"), ("resume", "c", "--budget", "400x")):
        refused = sh(*command)
        assert refused.code not in (0, 1)
        assert refused.err.endswith("pass --trust-remote-code\n"), refused
        assert sh(*command, "--trust-remote-code").code in (0, 1)
    assert sh("shrink", "c", "--trust-remote-code").code == 0
