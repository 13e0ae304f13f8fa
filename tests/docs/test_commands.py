"""Every command line in our pages exists: the command, its options, the targets of make."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from qanat.cli.commands import SECTIONS, load_command
from qanat.cli.main import cli
from tests.docs.pages import PAGES, ROOT, blocks, code_words, name_of

__all__: list[str] = []

COMMANDS = {entry.name for entries in SECTIONS.values() for entry in entries}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def command_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh", "console", ""):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from simple_commands(line.removeprefix("$ "))
    for words in code_words(page):
        yield from simple_commands(words)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of one line of a shell, without what a comment, sudo or a pipe adds."""
    try:
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word and set(word) <= set(";|&"):
            if command:
                yield command[1:] if command[0] == "sudo" else command
            command = []
        else:
            command.append(word)


def mistakes(words: list[str]) -> Iterator[str]:
    program = Path(words[0]).name
    if program == "make":
        for word in words[1:]:
            name, assigned, value = word.partition("=")
            if not assigned and word not in TARGETS:
                yield f"make {word}: no such target"
            elif name == "ARGS" and "run" in words:
                yield from option_mistakes("relay", shlex.split(value))
    elif program == "realm":
        yield from option_mistakes("relay", words[1:])
    elif program == "qanat" and len(words) > 1:
        if words[1].startswith("-"):
            yield from unknown(cli, words[1:])
        elif words[1].islower() and words[1] not in COMMANDS:
            yield f"qanat {words[1]}: no such command"
        elif words[1] in COMMANDS:
            yield from option_mistakes(words[1], words[2:])


def option_mistakes(name: str, words: list[str]) -> Iterator[str]:
    yield from unknown(load_command(name), words)


def unknown(command: click.Command, words: list[str]) -> Iterator[str]:
    known = {"-h", "--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    for word in words:
        option = word.partition("=")[0] if word.startswith("--") else word[:2]
        if option.startswith("-") and len(word) > 1 and option not in known:
            yield f"{command.name} {word}: no such option"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    wrong = [mistake for words in command_lines(page) for mistake in mistakes(words)]
    assert not wrong


def test_the_readme_shows_commands() -> None:
    """Guards the reader of pages itself: it must find what is plainly there."""
    lines = list(command_lines(ROOT / "README.md"))
    assert ["make", "run", "ARGS=-l 0.0.0.0:5000 -r example.com:80"] in lines
    assert ["qanat", "relay", "-c", "relay.toml", "--watch"] in lines


@pytest.mark.parametrize(
    "line",
    [
        "qanat relays -c file",
        "qanat relay --wach",
        "cd x && qanat relay -q",
        "make tea",
        'make run ARGS="--quik-start"',
        "/opt/qanat/bin/qanat flows --jsn",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    assert [mistake for words in simple_commands(line) for mistake in mistakes(words)]
