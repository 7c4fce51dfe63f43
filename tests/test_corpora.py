"""The data files under corpora/ are what their README says: counts, alphabet, widths, formats."""

import re
import string
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORPORA = ROOT / "corpora"
ALPHABET = set(string.ascii_letters + "\n !$&',-.3:;?")  # that of Tiny Shakespeare
WIDTH = 64  # characters of a prompt

PLAYS = {"seeds/plays.txt": 120, "seeds/prose.txt": 60, "seeds/fragments.txt": 60, "loops.txt": 40}
CHAT = {
    "chat/questions.txt": 24, "chat/requests.txt": 24, "chat/roles.txt": 20, "chat/secrets.txt": 24,
    "chat/formats.txt": 20, "chat/long.txt": 20, "chat/odd.txt": 20, "chat/languages.txt": 20,
}  # fmt: skip
PROMPTS = {**PLAYS, **CHAT}
BLACKLIST, DICTIONARY = "words/blacklist.txt", "dictionaries/shakespeare.dict"
FILES = {*PROMPTS, BLACKLIST, DICTIONARY}

ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{2})|(["\\]))')
TOKEN = re.compile(r'([a-z][a-z0-9_]*)="((?:[^"\\]|\\x[0-9a-fA-F]{2}|\\["\\])+)"')


def lines(name):
    """The lines of a file, the spaces at their ends kept."""
    text = (CORPORA / name).read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    return text[:-1].split("\n")


def entries(name):
    if name in PROMPTS:
        return lines(name)
    return [line for line in lines(name) if line and not line.startswith("#")]


def tokens():
    """Name and value of every entry of the dictionary, escapes resolved."""
    found = []
    for line in entries(DICTIONARY):
        match = TOKEN.fullmatch(line)
        assert match, f"not a dictionary entry: {line!r}"
        value = ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], match[2])
        found.append((match[1], value))
    return found


def test_the_alphabet_has_65_characters():
    assert len(ALPHABET) == 65


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_fit_the_model(name):
    prompts = entries(name)
    assert len(prompts) >= PROMPTS[name]
    for prompt in prompts:
        assert prompt.strip(), "an empty line is no prompt"
        assert len(prompt) <= WIDTH, prompt
        assert name in CHAT or set(prompt) <= ALPHABET, prompt


def test_user_turns_are_ascii_but_for_those_in_other_languages():
    assert sum(map(len, map(entries, CHAT))) >= 150
    for name in CHAT:
        plain = [prompt for prompt in entries(name) if prompt.isascii() and prompt.isprintable()]
        assert len(plain) == (0 if name == "chat/languages.txt" else len(entries(name)))


def test_user_turns_in_other_languages_are_in_many_scripts():
    scripts = {
        unicodedata.name(c).split()[0] for line in entries("chat/languages.txt") for c in line if c > "~"
    }
    assert {"LATIN", "CYRILLIC", "CJK", "HANGUL", "ARABIC", "HEBREW", "DEVANAGARI", "GREEK"} <= scripts


def test_no_prompt_stands_twice():
    prompts = [prompt for name in PROMPTS for prompt in entries(name)]
    twice = {prompt for prompt in prompts if prompts.count(prompt) > 1}
    assert not twice


def test_most_plays_break_off_and_some_end_with_a_space():
    # An editor that strips trailing spaces would change the prompts without a word.
    plays = entries("seeds/plays.txt")
    assert sum(line.endswith(" ") for line in plays) >= 10
    assert sum(line[-1] not in ".?!" for line in plays) > len(plays) / 2


def test_most_loop_prone_prompts_say_something_three_times_in_a_row():
    said = [prompt for prompt in entries("loops.txt") if re.search(r"(.{1,24}?)\1\1", prompt)]
    assert len(said) >= 40


def test_blacklist_is_plain_words():
    words = entries(BLACKLIST)
    assert len(words) >= 40
    assert len(set(words)) == len(words)
    assert all(re.fullmatch("[a-z]{3,}", word) for word in words)


def test_dictionary_parses_and_stays_in_the_alphabet():
    found = tokens()
    names, values = zip(*found, strict=True)
    assert len(found) >= 60
    assert len(set(names)) == len(names)
    assert len(set(values)) == len(values)
    assert all(set(value) <= ALPHABET and len(value) <= WIDTH for value in values)


def test_every_speaker_cue_stands_on_its_own_line():
    cues = [value for name, value in tokens() if name.startswith("cue_") and value.endswith(":\n")]
    whole = [cue for cue in cues if re.fullmatch(r"\n\n[A-Z][A-Za-z ]+:\n", cue)]
    assert len(whole) >= 15


def test_readme_counts_what_is_there():
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (\d+) \|", (CORPORA / "README.md").read_text("utf-8"), re.M)
    assert {name: int(count) for name, count in rows} == {name: len(entries(name)) for name in FILES}


def test_no_file_is_left_out_here():
    held = {p.relative_to(CORPORA).as_posix() for p in CORPORA.rglob("*") if p.suffix in (".txt", ".dict")}
    assert held == FILES


def test_the_licence_is_the_one_the_readme_names():
    assert "Apache-2.0" in (CORPORA / "README.md").read_text("utf-8")
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
