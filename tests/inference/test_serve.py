"""The program as a server: it is asked over HTTP, as any client would."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.cli import main


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the host and port that it names; stopped at the end."""
    command = [sys.executable, "-m", "chrysalis_mlx", "serve", *map(str, arguments)]
    pipe = subprocess.PIPE
    own = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=own) as program:
        try:
            assert program.stdout is not None
            assert program.stderr is not None
            address = program.stdout.readline().strip()
            assert address, program.stderr.read()
            assert address.startswith("http://127.0.0.1:")
            assert address.endswith("/v1")
            yield program, address.removeprefix("http://").removesuffix("/v1")
        finally:
            program.kill()


def ask(
    host: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> tuple[int, Mapping[str, str], str]:
    connection = http.client.HTTPConnection(host, timeout=60)
    content = None if body is None else json.dumps(body)
    connection.request(method or ("POST" if body else "GET"), path, content, dict(headers or {}))
    with connection.getresponse() as answer:
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    connection.close()
    return found


def told(program: subprocess.Popen[str], lines: int) -> list[str]:
    """The next lines of its output."""
    assert program.stdout is not None
    return [program.stdout.readline().rstrip("\n") for _ in range(lines)]


def stop(program: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Its exit status, and what it said on standard error."""
    program.send_signal(number)
    _, err = program.communicate(timeout=60)
    return program.returncode, err


def chat_request(**options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8, "seed": 1, **options}


def test_a_served_model_answers_as_openais_api_does(larva: Path) -> None:
    with serving(larva, "--port", "0", "--quantize", "F32", "--no-api-key") as (program, host):
        status, _, models = ask(host, "/v1/models")
        [model] = json.loads(models)["data"]
        assert (status, model["id"], model["meta"]["n_ctx"]) == (200, "larva", 512)
        status, _, whole = ask(host, "/v1/chat/completions", chat_request())
        choice = json.loads(whole)["choices"][0]
        assert (status, choice["finish_reason"], choice["message"]["role"]) == (200, "length", "assistant")
        status, headers, events = ask(host, "/v1/chat/completions", chat_request(stream=True))
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        *chunks, done = [line.removeprefix("data: ") for line in events.splitlines() if line]
        deltas = [json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks]
        assert done == "[DONE]"
        assert len([delta for delta in deltas if delta]) > 1
        # A stream shows nothing of bytes that are no character, at the end of what a random model says.
        assert choice["message"]["content"].startswith("".join(deltas))
        # The makers' sampling is the default of a request that says nothing.
        props = json.loads(ask(host, "/props")[2])["default_generation_settings"]["params"]
        found = [round(props[name], 4) for name in ("temperature", "top_p", "top_k", "repeat_penalty")]
        assert found == [0.7, 0.9, 30, 1.1]
        _, curl, _, python = told(program, 4)
        status, err = stop(program, signal.SIGINT)
        assert (status, err.splitlines()[-1]) == (0, "stopped")
        assert f"serving {larva}/export/model-F32.gguf" in err
        assert curl.startswith(f"curl http://{host}/v1/chat/completions ")
        assert '"content": "You are a larva."' in curl
        assert f'base_url="http://{host}/v1"' in python
        assert "CHRYSALIS_API_KEY" not in curl + python


def test_the_curl_line_can_be_pasted(larva: Path) -> None:
    with serving(larva, "--port", "0", CHRYSALIS_API_KEY="secret word") as (program, _):
        lines = told(program, 4)
        own = {**os.environ, "CHRYSALIS_API_KEY": "secret word", "no_proxy": "127.0.0.1"}
        done = subprocess.run(["bash", "-c", shortened(lines[1])], capture_output=True, text=True, env=own, check=True)
        assert json.loads(done.stdout)["model"] == "larva"
        assert "secret word" not in "".join(lines)
        [_, _, script] = shlex.split(lines[3])
        compile(script, "python -c", "exec")


def shortened(curl: str) -> str:
    return curl.replace('"model"', '"max_tokens": 4, "model"')


def test_without_a_key_of_ones_own_there_is_a_new_one_each_time(larva: Path) -> None:
    """A stranger's page can reach the port in two ways; neither gets anywhere."""
    keys = []
    for _ in range(2):
        with serving(larva, "--port", "0") as (program, host):
            _, export, _, curl = told(program, 4)
            assert export.startswith("export CHRYSALIS_API_KEY=")
            keys.append(export.partition("=")[2])
            if len(keys) == 1:
                # As a form is sent, without asking before; and under a name that points here (DNS rebinding).
                too_deep = {"prompt": "a", "grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000}
                for body in (chat_request(), too_deep):
                    for headers in ({"Content-Type": "text/plain"}, {"Host": "evil.example:8080"}):
                        assert ask(host, "/completion", body, headers)[0] == 401
                own = {**os.environ, "no_proxy": "127.0.0.1"}
                script = f"{export}\n{shortened(curl)}"
                done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=own, check=True)
                assert json.loads(done.stdout)["model"] == "larva"
    assert len(set(keys)) == 2
    assert min(map(len, keys)) == 32


@pytest.mark.parametrize("key", [(), ("--no-api-key",)])
def test_nothing_but_text_can_be_had(key: tuple[str, ...], larva: Path) -> None:
    """What llama.cpp's server could do besides is off: files, tools, other models, other people's requests."""
    with serving(larva, "--port", "0", *key) as (program, host):
        right = {"Authorization": f"Bearer {told(program, 2)[1].partition('=')[2]}"}
        for method, path in (
            ("GET", "/slots"), ("POST", "/slots/0?action=save"), ("POST", "/props"), ("GET", "/metrics"),
            ("GET", "/tools"), ("POST", "/tools"), ("GET", "/cors-proxy?url=http://127.0.0.1/"),
            ("POST", "/models/load"), ("GET", "/"), ("GET", "/../run.json"),
        ):  # fmt: skip
            body = {"filename": "slot.bin", "model": "x"} if method == "POST" else None
            assert ask(host, path, body, right, method)[0] in (403, 404, 501), path
        picture = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
        asked = {"messages": [{"role": "user", "content": [picture]}]}
        status, _, said = ask(host, "/v1/chat/completions", asked, right)
        assert status >= 400
        assert "image input is not supported" in said
        assert ask(host, "/props", None, right)[0] == 200


def test_pages_of_others_read_nothing_and_a_key_is_asked_for(larva: Path) -> None:
    file = larva / "export/model-Q8_0.gguf"
    with serving(file, "--port", "0", "--api-key", "secret", "--context", "256") as (program, host):
        right = {"Authorization": "Bearer secret"}
        for headers, expected in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), (right, 200)):
            status, _, said = ask(host, "/v1/chat/completions", chat_request(), headers)
            assert status == expected, said
        for origin in ("https://stranger.example", "http://localhost.stranger.example", "null"):
            headers = ask(host, "/v1/chat/completions", chat_request(), {**right, "Origin": origin})[1]
            assert "access-control-allow-origin" not in headers
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            headers = ask(host, "/v1/chat/completions", None, asked, "OPTIONS")[1]
            assert "access-control-allow-origin" not in headers
            assert headers.get("access-control-allow-credentials") != "true"
        headers = ask(host, "/v1/chat/completions", chat_request(), {**right, "Origin": "http://localhost:3000"})[1]
        assert headers["access-control-allow-origin"] == "http://localhost:3000"
        assert stop(program, signal.SIGTERM)[0] == 0


def test_a_port_that_is_taken_is_told(larva: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(larva, "--port", "0") as (_, host):
        port = host.split(":")[1]
        assert main(["serve", str(larva), "--port", port]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert f"port {port} of 127.0.0.1 cannot be had" in err
        assert "take another one with --port N" in err
        assert ask(host, "/health")[0] == 200


def test_an_empty_key_and_a_damaged_file_are_told(
    larva: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(larva), "--api-key", " "]) == 2
    assert "the API key is empty" in capfd.readouterr().err
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((larva / "export/model-F32.gguf").read_bytes()[:-4096])
    assert main(["serve", str(cut), "--port", "0"]) == 1
    assert "model is corrupted or incomplete" in capfd.readouterr().err


def test_it_says_when_llama_cpp_ends(larva: Path) -> None:
    with serving(larva, "--port", "0") as (program, _):
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        if not children.is_file():
            pytest.skip("the system does not tell a process's children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        _, err = program.communicate(timeout=60)
        assert program.returncode == 1
        assert "error: llama.cpp ended" in err
