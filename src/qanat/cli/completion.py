"""``qanat completion``: the script that teaches a shell our commands, options and file names."""

from __future__ import annotations

import click

from qanat.cli.output import emit

__all__ = ["command"]

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> int:
    """Print the completion script for SHELL: bash, zsh or fish.

    \b
    bash: eval "$(qanat completion bash)"       in ~/.bashrc
    zsh:  eval "$(qanat completion zsh)"        in ~/.zshrc
    fish: qanat completion fish > ~/.config/fish/completions/qanat.fish
    """
    from click.shell_completion import get_completion_class

    from qanat.cli.main import cli

    writer = get_completion_class(shell)
    if writer is None:
        raise click.UsageError(f"no completion for {shell}")
    script = writer(cli, {}, "qanat", "_QANAT_COMPLETE")
    # Formatted here, because the writer's own way first asks the installed shell for its version.
    emit(script.source_template % script.source_vars())
    return 0
