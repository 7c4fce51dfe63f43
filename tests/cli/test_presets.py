"""Presets: settings for a purpose, which a file and the options override."""

import tomllib
from pathlib import Path

import pytest

from helpers.shell import Shell
from lmfuzz import spec as specs
from lmfuzz.campaign.choose import check_names
from lmfuzz.inputs.bundled import preset, presets, resource
from lmfuzz.storage.record import CampaignRecord

NAMES = ["ci", "format", "leaks", "loops", "quantised"]


def test_presets_are_listed_with_their_purpose(sh: Shell) -> None:
    assert list(presets()) == NAMES
    listed = sh("list", "presets").out
    for name, purpose in presets().items():
        assert len(purpose.split()) > 5
        assert f"  {name:<13} {purpose}\n" in listed
    assert "presets" in sh("list").out


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_file_of_settings(name: str) -> None:
    config = specs.load(preset(name))
    assert {"objectives", "budget"} & config.keys()
    check_names(specs.resolve(config, {}))
    assert "model" not in tomllib.loads(preset(name).read_text())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "format"])
def test_a_preset_runs_on_the_bundled_model(sh: Shell, name: str) -> None:
    done = sh("fuzz", "--preset", name, "--budget", "16x", "--max-new", "8", "--count", "4", "-o", "c")
    assert done.code in (0, 1), done.err


def test_the_preset_for_formats_runs(sh: Shell) -> None:
    pytest.importorskip("jsonschema")
    pytest.importorskip("regex")
    done = sh("fuzz", "--preset", "format", "--budget", "16x", "-o", "c")
    assert done.code == 1, done.err
    assert "format: not JSON" in done.out


def test_a_file_overrides_a_preset_and_options_override_both(sh: Shell) -> None:
    Path("my.toml").write_text('budget = "500x"\nkeep = 2\n')
    given = "--preset", "ci", "--config", "my.toml", "--keep", "7"
    sh("fuzz", "model.py:easy", "--seeds", "seeds.txt", *given, "-o", "c")
    spec = CampaignRecord.read(Path("c")).spec
    assert (spec.budget, spec.keep, spec.confirm, spec.stop_after) == ("500x", 7, 5, 1)


def test_presets_serve_other_commands_too(sh: Shell) -> None:
    model = str(resource("models:shakespeare"))
    given = model, "int8", "--seeds", "text:to be", "--budget", "16x", "-o", "c"
    assert sh("diff", *given, "--preset", "ci").code in (0, 1)
    spec = CampaignRecord.read(Path("c")).spec
    assert (spec.objectives, spec.confirm) == (["disagreement"], 5)


def test_an_unknown_preset_is_refused_with_the_nearest_name(sh: Shell) -> None:
    assert "there is no preset 'loop'; did you mean 'loops'?" in sh.refused("fuzz", "--preset", "loop")
    assert "; there are ci, format, leaks, loops, quantised" in sh.refused("fuzz", "--preset", "zzzzz")
