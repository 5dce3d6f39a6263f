"""Nothing that the doctor says holds a token or a password, whatever a library quotes of the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chrysalis_mlx.doctor.check import ok, problem
from chrysalis_mlx.doctor.passwords import without_passwords

SECRET = "S3cretW0rd"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("HF_TOKEN", "HF_ENDPOINT", "OLLAMA_HOST"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", f"{SECRET}\n"),
        ("HF_ENDPOINT", f"https://ada:{SECRET}@hub.example"),
        ("HF_ENDPOINT", f"https://{SECRET}@hub.example"),
        ("HF_ENDPOINT", f"https://ada:1/{SECRET}@hub.example"),
        ("HF_ENDPOINT", f"https://hub.example/?key={SECRET}&x=1"),
        ("https_proxy", f"ada:{SECRET}#2@proxy.example:80"),
        ("ALL_PROXY", f"socks5://ada:{SECRET}@proxy.example"),
        ("OLLAMA_HOST", f"ada:{SECRET}@10.0.0.1"),
    ],
)
def test_a_password_is_hidden_wherever_it_stands(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    told = without_passwords(problem("hub", f"ada says: Invalid port: '{SECRET}'", f"write {SECRET}/x"))
    assert (told.found, told.fix) == ("ada says: Invalid port: '[hidden]'", "write [hidden]/x")
    assert (told.name, told.status) == ("hub", "problem")


def test_where_there_is_none_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    check = ok("hub", "http://proxy.example:3128 at localhost: all is well")
    assert without_passwords(check) == check


def test_the_doctor_hides_what_its_libraries_quote() -> None:
    """The Hub's client cannot even be imported with such an address: several checks fail, each in its own words."""
    own = {
        "HF_ENDPOINT": f"http://ada:{SECRET}/x@127.0.0.1:9",
        "HTTPS_PROXY": f"http://ada:{SECRET}/x@127.0.0.1:9",
        "OLLAMA_HOST": f"http://ada:{SECRET}/x@127.0.0.1:9",
        "HF_TOKEN": f"hf_{SECRET}",
    }
    command = [sys.executable, "-m", "chrysalis_mlx", "doctor", "--offline", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, check=False)
    assert done.returncode == 1
    assert "Port could not be cast to integer value as '[hidden]'" in done.stdout
    assert SECRET not in done.stdout + done.stderr
