"""Completion scripts, and what they are answered."""

import shutil
import subprocess

import pytest

from tests.cli.running import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(qanat: Run, shell: str) -> None:
    ran = qanat("completion", shell)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_QANAT_COMPLETE" in ran.stdout
    assert f"{shell}_complete" in ran.stdout


def test_bash_accepts_its_script(qanat: Run) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = qanat("completion", "bash").stdout
    ran = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_another_shell_is_a_wrong_use(qanat: Run) -> None:
    ran = qanat("completion", "tcsh")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "bash" in ran.stderr


def complete(qanat: Run, line: str) -> list[str]:
    """What bash is offered for the last word of ``line``."""
    ran = qanat(
        _QANAT_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split(" ")) - 1),
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def test_commands_are_offered(qanat: Run) -> None:
    assert complete(qanat, "qanat re") == ["plain,relay", "plain,reload"]


def test_options_are_offered(qanat: Run) -> None:
    offered = complete(qanat, "qanat relay --lis")
    assert {"plain,--listen", "plain,--listen-interface"} <= set(offered)


def test_options_are_offered_after_others(qanat: Run) -> None:
    assert "plain,--remote" in complete(qanat, "qanat relay -l :5000 --rem")


def test_words_of_a_choice_are_offered(qanat: Run) -> None:
    assert complete(qanat, "qanat relay --log-level d") == ["plain,debug"]


@pytest.mark.parametrize("line", ["qanat check x", "qanat relay -c x", "qanat diff a x"])
def test_files_are_offered_where_files_belong(qanat: Run, line: str) -> None:
    assert complete(qanat, line) == ["file,x"]
