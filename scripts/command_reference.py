"""The commands of the README's section "Commands": every command with its help, made from click."""

from __future__ import annotations

import difflib
import html
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from chrysalis_mlx.cli import COMMANDS, group, load_command  # noqa: E402

README = ROOT / "README.md"
BEGIN, END = "<!-- made by scripts/command_reference -->", "<!-- end -->"
WIDTH = 100


def main(arguments: list[str]) -> int:
    """Print the reference; `--write` puts it between the markers of README.md, `--check` compares it with that.

    Returns:
        the exit status: 1 when `--check` finds another text, 2 for other arguments.
    """
    if arguments not in ([], ["--write"], ["--check"]):
        sys.stderr.write("usage: scripts/command_reference [--write | --check]\n")
        return 2
    made = reference()
    if not arguments:
        sys.stdout.write(made)
        return 0
    before, written, after = parted(README.read_text(encoding="utf-8"))
    if arguments == ["--write"]:
        README.write_text(f"{before}{made}{after}", encoding="utf-8")
        return 0
    if made == written:
        return 0
    names = ("README.md", "what the commands say")
    sys.stdout.writelines(difflib.unified_diff(written.splitlines(True), made.splitlines(True), *names))
    sys.stderr.write("README.md tells of other commands; run: scripts/command_reference --write\n")
    return 1


def parted(text: str) -> tuple[str, str, str]:
    """A text in three: what ends with the first marker, what is between the markers, the rest."""
    before, found, rest = text.partition(f"{BEGIN}\n")
    written, ended, after = rest.partition(f"{END}\n")
    if not found or not ended:
        raise SystemExit(f"README.md has no lines '{BEGIN}' and '{END}'")
    return before + found, written, ended + after


def reference() -> str:
    """Markdown: a line for each command, which opens to its help."""
    root = click.Context(group, info_name="chrysalis-mlx", help_option_names=["-h", "--help"])
    entries = []
    for name, (_, line) in COMMANDS.items():
        for command, context in leaves(load_command(name), root, name):
            told = line if context.parent is root else command.get_short_help_str(WIDTH)
            entries.append(entry(command, context, told))
    return "\n".join(entries)


def leaves(command: click.Command, parent: click.Context, name: str) -> Iterator[tuple[click.Command, click.Context]]:
    """The command, or the commands of a group, each with a context that has its full name."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name, child in command.commands.items():
        yield from leaves(child, context, name)


def entry(command: click.Command, context: click.Context, line: str) -> str:
    """One command, closed to its name, its arguments and a line of what it does."""
    name = context.command_path.removeprefix("chrysalis-mlx ")
    words = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    summary = f"<code>{html.escape(' '.join([name, *words]))}</code> {html.escape(line, quote=False)}"
    return f"<details><summary>{summary}</summary>\n\n```text\n{command.get_help(context)}\n```\n\n</details>\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
