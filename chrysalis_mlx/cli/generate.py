"""chrysalis-mlx generate: a text from the exported model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from chrysalis_mlx.cli.options import TypeName, run_argument
from chrysalis_mlx.cli.output import json_option, print_json


@click.command(name="generate")
@run_argument
@click.option("--prompt", required=True, help="What to answer, or with --raw to continue.")
@click.option(
    "--quantize", type=TypeName(), metavar="TYPE", help="Which exported GGUF; without it, the one the Modelfile names."
)
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Of the answer, at most.")
@click.option("--temperature", type=click.FloatRange(0.0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answer.")
@json_option
def command(
    run: Path,
    prompt: str,
    quantize: str | None,
    raw: bool,
    max_tokens: int,
    temperature: float,
    seed: int,
    as_json: bool,
) -> None:
    """Answer a prompt with RUN's exported model in llama.cpp.

    \b
    Example:
      chrysalis-mlx generate runs/first --prompt "What is a blueprint?" --quantize Q4_K_M
    """
    from chrysalis_mlx.inference.generate import generate

    file, completion = generate(
        run, prompt, quantize, raw=raw, max_tokens=max_tokens, temperature=temperature, seed=seed
    )
    if as_json:
        print_json({"run": run, "file": file, "prompt": prompt, **asdict(completion)})
    else:
        click.echo(completion.text)
