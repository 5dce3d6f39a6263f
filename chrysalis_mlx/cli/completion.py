"""chrysalis-mlx completion: what lets a shell complete commands, options and values."""

from __future__ import annotations

import click

_PROGRAM, _VARIABLE = "chrysalis-mlx", "_CHRYSALIS_MLX_COMPLETE"
_USE = {
    "bash": f"""\
# Completion of {_PROGRAM} in bash 4.4 or newer (macOS has 3.2: brew install bash). Put into ~/.bashrc:
#     eval "$({_PROGRAM} completion bash)"
""",
    "zsh": f"""\
# Completion of {_PROGRAM} in zsh. Put into ~/.zshrc, after compinit:
#     eval "$({_PROGRAM} completion zsh)"
# or this file, as _{_PROGRAM}, into a directory of $fpath.
""",
    "fish": f"""\
# Completion of {_PROGRAM} in fish. Keep it as a file:
#     {_PROGRAM} completion fish > ~/.config/fish/completions/{_PROGRAM}.fish
""",
}


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(_USE)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that lets SHELL complete commands, options, runs, models, blueprints and types.

    Its first lines say where it belongs.

    \b
    Examples:
      eval "$(chrysalis-mlx completion bash)"
      chrysalis-mlx completion fish > ~/.config/fish/completions/chrysalis-mlx.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    complete = kind(ctx.find_root().command, {}, _PROGRAM, _VARIABLE)
    # Not `source()`, which looks for a bash here and now: the script may be for another computer.
    script = complete.source_template % complete.source_vars()
    if shell == "zsh":  # it looks for `#compdef` in the first line
        first, script = script.split("\n", 1)
        click.echo(first)
    click.echo(_USE[shell] + script, nl=False)
