"""The list of commands and what it costs to have it."""

import subprocess
import sys

import click
import pytest

from qanat.cli.commands import SECTIONS, CommandGroup, load_command, nearest
from qanat.cli.main import cli

NAMES = [entry.name for entries in SECTIONS.values() for entry in entries]


@pytest.mark.parametrize("name", NAMES)
def test_each_listed_command_exists_under_its_name(name: str) -> None:
    command = load_command(name)
    assert command.name == name
    assert command.help, "a command needs a help text"
    assert command.callback is not None


def test_one_command_imports_no_other() -> None:
    script = (
        "import sys\n"
        "from qanat.cli.main import main\n"
        "main(['completion', 'bash'])\n"
        "print(*(name for name in sys.modules if name.startswith('qanat')), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.rpartition(".")[2] for name in ran.stderr.split() if ".cli." in name}
    assert loaded & set(NAMES) == {"completion"}


def test_the_first_import_is_small() -> None:
    """Start-up time is import time; these are the modules that would spoil it."""
    script = (
        "import sys\n"
        "import qanat.cli.main, qanat.cli.relay\n"
        "heavy = {'asyncio', 'pydantic', 'rich', 'yaml', 'prometheus_client', 'h11', 'json5',\n"
        "    'tomllib', 'importlib.metadata', 'logging', 'ssl', 'socket', 'subprocess'}\n"
        "print(*sorted(heavy & sys.modules.keys()))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_the_group_knows_only_what_is_listed() -> None:
    assert isinstance(cli, CommandGroup)
    context = click.Context(cli)
    assert cli.list_commands(context) == NAMES
    assert cli.get_command(context, "toml_text") is None


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("relai", "; did you mean 'relay'?"),
        ("chek", "; did you mean 'check'?"),
        ("xyzzy", ""),
    ],
)
def test_the_nearest_word(word: str, hint: str) -> None:
    assert nearest(word, tuple(NAMES)) == hint
