"""The command line's options: made from Spec, grouped, completed by a shell, and documented."""

import re
import runpy
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from helpers.shell import Shell
from lmfuzz.cli.main import COMMANDS as TABLE
from lmfuzz.cli.main import cli
from lmfuzz.spec import Spec, option_name, setting

ROOT = Path(__file__).parents[2]
SETTINGS = [key for key in Spec.model_fields if key not in ("model", "twin")]


def commands(group: click.Group, names: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= (
            commands(command, (*names, name))
            if isinstance(command, click.Group)
            else {(*names, name): command}
        )
    return found


COMMANDS = commands(cli)


@pytest.mark.parametrize("name", TABLE)
def test_the_list_of_commands_says_of_each_what_its_own_help_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200) == TABLE[name][1]


@pytest.mark.parametrize("key", SETTINGS)
def test_fuzz_has_an_option_for_every_setting(key: str) -> None:
    option = next(param for param in COMMANDS["fuzz",].params if param.name == key)
    assert option_name(key) in option.opts


@pytest.mark.parametrize("key", Spec.model_fields)
def test_what_is_said_of_a_setting_can_be_read_alone(key: str) -> None:
    description = Spec.model_fields[key].description or ""
    assert description[0].isupper()
    assert description.endswith(".")
    assert len(description.split()) >= 5
    assert setting(key).group


@pytest.mark.parametrize("names", COMMANDS)
def test_every_option_has_a_sentence_and_the_help_fits(names: tuple[str, ...]) -> None:
    for param in COMMANDS[names].params:
        if isinstance(param, click.Option):
            help = (param.help or "").partition(" [default")[0]
            assert re.fullmatch(r"[A-Z].*[.)]", help, re.DOTALL), (names, param.name, help)
    shown = CliRunner().invoke(cli, [*names, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80


def test_the_help_shows_options_in_groups_with_the_commands_own_defaults(sh: Shell) -> None:
    out = sh("fuzz", "--help").out
    headings = re.findall(r"^([A-Z][a-z ]+):$", out, re.MULTILINE)
    assert headings == ["What to test", "What to look for", "How to search", "How the model runs", "Output"]
    assert "[default: directed]" in out
    assert "[default: boundary]" in sh("image", "diff", "--help").out
    assert "--edits" not in sh("image", "diff", "--help").out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["fuzz", "--search", "dir"], ["directed"]),
        (["fuzz", "--objective", "rep"], ["repetition"]),
        (["fuzz", "--operator", "inse"], ["insert"]),
        (["fuzz", "--feature", "hidden_l"], ["hidden_last"]),
        (["fuzz", "--level", "t"], ["token"]),
        (["diff", "--twin", "int"], ["int8", "int4"]),
        (["exp"], ["export"]),
        (["fuzz", "--max-n"], ["--max-new"]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_plug_ins(
    shell: str, typed: list[str], offered: list[str]
) -> None:
    words = ["lmfuzz", *typed]
    line = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(typed))}
    if shell == "fish":
        line["COMP_CWORD"] = typed[-1]
    answer = CliRunner().invoke(
        cli, prog_name="lmfuzz", env={"_LMFUZZ_COMPLETE": f"{shell}_complete", **line}
    )
    found = re.findall(r"[\w-]+", answer.output)
    assert set(offered) <= set(found), answer.output


def test_quiet_prints_results_alone_and_verbose_more(sh: Shell) -> None:
    usual = sh.fuzz("-o", "usual")
    quiet = sh.fuzz("-o", "quiet", "--quiet")
    verbose = sh.fuzz("-o", "verbose", "-v")
    assert "radius" in usual.out
    assert "look at one with" in usual.out
    assert not [line for line in quiet.out.splitlines() if line.startswith("lmfuzz: ")]
    assert "findings in" in quiet.out
    assert "look at one with" not in quiet.out
    assert "lmfuzz: identity toy" in verbose.out
    assert "lmfuzz: budget = 3000x" in verbose.out


def test_verbose_shows_the_traceback_of_an_error(sh: Shell) -> None:
    assert "Traceback" not in sh.fuzz(model="model.py:fails").err
    done = sh.fuzz("-v", model="model.py:fails")
    assert done.code == 3
    assert "ValueError: no weights here" in done.err
    assert done.err.startswith("Traceback")


def test_the_reference_of_settings_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "settings_reference"))["reference"]()
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == made, (
        "run scripts/settings_reference"
    )


def test_quietly_nothing_is_said_of_no_findings_and_the_exit_code_stays(sh: Shell) -> None:
    sh.fuzz("-o", "c", model="model.py:other", budget="100x")
    for command in ("replay", "shrink"):
        assert "c has no findings" in sh(command, "c").out
        done = sh(command, "c", "-q")
        assert (done.code, done.out, done.err) == (0, "", "")
