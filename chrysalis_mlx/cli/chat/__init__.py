"""chrysalis-mlx chat: a conversation in the terminal."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from chrysalis_mlx.cli.options import context_option, exported_argument, quantize_option


@click.command(name="chat")
@exported_argument
@quantize_option
@click.option(
    "--backend",
    type=click.Choice(["llamacpp", "mlx", "torch"]),
    default="llamacpp",
    show_default=True,
    help="llamacpp runs the exported GGUF; mlx and torch run the base with the run's adapter.",
)
@click.option("--system", metavar="TEXT", help="System prompt; without it, the blueprint's, else the model's own.")
@click.option("--temperature", type=click.FloatRange(0.0), help="0 is greedy; without it, what the makers recommend.")
@click.option("--top-p", type=click.FloatRange(0.0, 1.0), help="Without it, what the makers recommend.")
@click.option("--seed", type=click.IntRange(0), help="The same questions get the same answers; else they differ.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer; without it, to its end.")
@context_option
def command(
    model: Path,
    quantize: str | None,
    backend: str,
    system: str | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    max_tokens: int | None,
    context: int | None,
) -> None:
    """Talk to a run's exported model, or to any GGUF; /base switches to the base model and back.

    Where standard input is no terminal, each line of it is a question, and the answers alone are printed.

    \b
    Examples:
      chrysalis-mlx chat runs/first
      chrysalis-mlx chat runs/first --backend mlx --temperature 0
      chrysalis-mlx chat runs/first/export/model-Q8_0.gguf < questions.txt
    """
    import secrets

    from chrysalis_mlx.cli.chat.lines import answer_lines
    from chrysalis_mlx.cli.chat.screen import note
    from chrysalis_mlx.cli.chat.terminal import converse
    from chrysalis_mlx.inference.chat import Chat, Choices
    from chrysalis_mlx.inference.speakers import find_speakers

    speakers = find_speakers(model, backend, quantize, context)
    if system is not None:
        speakers = dataclasses.replace(speakers, manner=dataclasses.replace(speakers.manner, system=system))
    asked = {"temperature": temperature, "top_p": top_p}
    sampling = {name: value for name, value in asked.items() if value is not None}
    choices = Choices(max_tokens, secrets.randbelow(1 << 31) if seed is None else seed, sampling)
    with Chat(speakers, choices, note) as chat:
        if sys.stdin.isatty() and sys.stdout.isatty():
            converse(chat)
        else:
            answer_lines(chat)
