"""chrysalis-mlx serve: the exported model for other programs of this machine."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from chrysalis_mlx.cli.options import Exported, TypeName
from chrysalis_mlx.cli.output import console, say
from chrysalis_mlx.errors import UsageError


@click.command(name="serve")
@click.argument("model", metavar="RUN|FILE.gguf", type=Exported())
@click.option(
    "--quantize",
    type=TypeName(),
    metavar="TYPE",
    help="Which of the run's GGUFs; without it, the one the Modelfile names.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="CHRYSALIS_API_KEY", help="What requests must bring; also $CHRYSALIS_API_KEY.")
@click.option("--context", type=click.IntRange(16), metavar="N", help="Tokens; without it the model's, at most 8192.")
def command(model: Path, quantize: str | None, port: int, api_key: str | None, context: int | None) -> None:
    """Serve a run's exported model, or any GGUF, in llama.cpp as OpenAI's API does; Ctrl-C stops it.

    On 127.0.0.1 alone: nobody else in the network reaches it. A page of another site that your browser shows gets no
    leave to read answers; to keep such pages, and other users of this machine, from asking at all, give --api-key.
    The blueprint's system prompt is not added: a request brings its own.

    \b
    Example:
      chrysalis-mlx serve runs/first --port 8080
    """
    from chrysalis_mlx.inference.files import find_exported, manner_of
    from chrysalis_mlx.inference.serve import serving

    if api_key is not None and not api_key.strip():
        raise UsageError("the API key is empty", fix="give one, or leave --api-key and $CHRYSALIS_API_KEY out")
    exported = find_exported(model, quantize)
    manner = manner_of(exported, context)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with serving(exported, manner, port=port, key=api_key or "") as server:
            console().print(f"serving {exported.file}; Ctrl-C stops it", markup=False, soft_wrap=True)
            say(*_examples(server.address, exported.name, manner.system, api_key is not None))
            server.wait()
    except KeyboardInterrupt:
        console().print("stopped")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _examples(address: str, name: str, system: str | None, with_key: bool) -> list[str]:
    """The address, and what can be pasted into a shell to try it."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "Who are you?"})
    model, shown = json.dumps(name, ensure_ascii=False), json.dumps(messages, ensure_ascii=False)  # Python's as well
    body = shlex.quote(f'{{"model": {model}, "messages": {shown}}}')
    header = '-H "Authorization: Bearer $CHRYSALIS_API_KEY" ' if with_key else ""
    key = 'os.environ["CHRYSALIS_API_KEY"]' if with_key else '"none"'
    script = (
        f"import os, openai; client = openai.OpenAI(base_url={json.dumps(address + '/v1')}, api_key={key}); "
        f"print(client.chat.completions.create(model={model}, messages={shown}).choices[0].message.content)"
    )
    return [
        f"{address}/v1",
        "",
        f"curl {address}/v1/chat/completions {header}-H 'Content-Type: application/json' -d {body}",
        "",
        f"python -c {shlex.quote(script)}",
    ]
