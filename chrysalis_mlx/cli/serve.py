"""chrysalis-mlx serve: the exported model for other programs of this machine."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from chrysalis_mlx.cli.options import context_option, exported_argument, quantize_option
from chrysalis_mlx.cli.output import console, say
from chrysalis_mlx.errors import UsageError


@click.command(name="serve")
@exported_argument
@quantize_option
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key",
    envvar="CHRYSALIS_API_KEY",
    help="What requests must bring; also $CHRYSALIS_API_KEY. Without it, a new key, which is shown.",
)
@click.option("--no-api-key", is_flag=True, help="Ask for no key: whoever reaches the port may use the model.")
@context_option
def command(
    model: Path, quantize: str | None, port: int, api_key: str | None, no_api_key: bool, context: int | None
) -> None:
    """Serve a run's exported model, or any GGUF, in llama.cpp as OpenAI's API does; Ctrl-C stops it.

    On 127.0.0.1 alone: nobody else in the network reaches it. The key keeps out other users of this machine, and the
    pages of strangers that your browser shows. The blueprint's system prompt is not added: a request brings its own.

    \b
    Example:
      chrysalis-mlx serve runs/first --port 8080
    """
    import secrets

    from chrysalis_mlx.inference.files import find_exported, manner_of
    from chrysalis_mlx.inference.serve import serving

    if api_key is not None and not api_key.strip():
        raise UsageError("the API key is empty", fix="give one, or leave --api-key and $CHRYSALIS_API_KEY out")
    made = secrets.token_hex(16) if api_key is None and not no_api_key else None
    key = "" if no_api_key else api_key or made or ""
    exported = find_exported(model, quantize)
    manner = manner_of(exported, context)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with serving(exported, manner, port=port, key=key) as server:
            console().print(f"serving {exported.file}; Ctrl-C stops it", markup=False, soft_wrap=True)
            say(f"{server.address}/v1", "", *([f"export CHRYSALIS_API_KEY={made}", ""] if made else []))
            say(*_examples(server.address, exported.name, manner.system, bool(key)))
            server.wait()
    except KeyboardInterrupt:
        console().print("stopped")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _examples(address: str, name: str, system: str | None, with_key: bool) -> list[str]:
    """What can be pasted into a shell to try it."""
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
        f"curl {address}/v1/chat/completions {header}-H 'Content-Type: application/json' -d {body}",
        "",
        f"python -c {shlex.quote(script)}",
    ]
