"""Secrets are found as detect-secrets finds them. Samples are put together at run time, so that none stands here."""

import base64
import json
import re
import socket
import string
import sys

import pytest
from detect_secrets.core.scan import _process_line_based_plugins
from detect_secrets.settings import Settings, transient_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.files import secrets
from chrysalis_mlx.genome.files.secrets import DEFAULT_DETECTORS, Finding, SecretScanner

SCANNER = SecretScanner()


def noise(length: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Characters without order, always the same."""
    return "".join(letters[(index * index * 7 + index * 13 + 5) % 251 % len(letters)] for index in range(length))


def coded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


HEX, LOWER = "0123456789abcdef", string.ascii_lowercase + string.digits
# Detector: a line with a secret, and the secret.
SAMPLES = {
    "ArtifactoryDetector": ("token: {}", "AK" + "C" + noise(20)),
    "AWSKeyDetector": ("id {}", "AK" + "IA" + noise(16, string.ascii_uppercase + string.digits)),
    "AzureStorageKeyDetector": ("Account" + "Key={}", noise(88)),
    "BasicAuthDetector": ("git clone https://someone:{}@example.org/x.git", noise(12)),
    "CloudantDetector": ("cloudant_" + "password: {}", noise(64, HEX)),
    "DiscordBotTokenDetector": ("bot {}", "M" + noise(23) + "." + noise(6) + "." + noise(27)),
    "GitHubTokenDetector": ("use {}", "gh" + "p_" + noise(36)),
    "GitLabTokenDetector": ("use {} now", "gl" + "pat-" + noise(20)),
    "IbmCloudIamDetector": ("ibm_cloud_api_" + "key: {}", noise(44)),
    "IbmCosHmacDetector": ("cos_hmac_secret_" + "access_key: {}", noise(48, HEX)),
    "JwtTokenDetector": ("bearer {}", ".".join([coded({"alg": "HS256"}), coded({"sub": "someone"}), noise(43)])),
    "KeywordDetector": ("pass" + 'word = "{}"', "hunter2" + "hunter2"),
    "MailchimpDetector": ("mail {}", noise(32, LOWER) + "-us" + "12"),
    "NpmDetector": ("//registry.npmjs.org/:_auth" + "Token={}", "npm" + "_" + noise(36)),
    "OpenAIDetector": ("with {}", "sk" + "-" + noise(20) + "T3Blbk" + "FJ" + noise(20)),
    "PrivateKeyDetector": ("-----{}-----", "BEGIN RSA " + "PRIVATE KEY"),
    "PypiTokenDetector": ("pypi {}", "pypi-" + "AgEIcHlwaS5vcmc" + noise(80)),
    "SendGridDetector": ("mail {}", "S" + "G." + noise(22) + "." + noise(43)),
    "SlackDetector": ("slack {}", "xox" + "b-" + "123456789012-" + noise(24)),
    "SoftlayerDetector": ("softlayer_api_" + "key: {}", noise(64, LOWER)),
    "SquareOAuthDetector": ("square {}", "sq0" + "csp-" + noise(43)),
    "StripeDetector": ("pay {}", "sk" + "_live_" + noise(24)),
    "TelegramBotTokenDetector": ("bot {}", "123456789" + ":" + noise(35)),
    "TwilioKeyDetector": ("sms {}", "A" + "C" + noise(32, LOWER)),
}
LINES = [line.format(secret) for line, secret in SAMPLES.values()]
WORDS = ("secret", "password", "token", "key", "valve", "field", "wave", "api_key")
PROSE = [
    f"The {word} of version {number}.{number}, sha256 {noise(64, HEX)}: https://example.org/{word}/{number}"
    for number, word in enumerate(WORDS * 20)
]


def plain(path: str, text: str) -> Finding | None:
    """What detect-secrets says on its own."""
    plugins = [{"name": name} for name in DEFAULT_DETECTORS]
    with transient_settings({"plugins_used": plugins, "filters_used": [{"path": path} for path in Settings().filters]}):
        lines = [(number, line + "\n") for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1)]
        found = next(_process_line_based_plugins(lines, path), None)
    return None if found is None else Finding(found.type, found.line_number)


def test_every_default_detector_has_a_sample() -> None:
    assert tuple(SAMPLES) == DEFAULT_DETECTORS


@pytest.mark.parametrize("name", DEFAULT_DETECTORS)
def test_a_secret_in_a_long_text_is_found_on_its_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a scan reached for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    line, secret = SAMPLES[name]
    text = "\n".join([*PROSE[:100], line.format(secret), *PROSE[100:]])
    found = SecretScanner([name]).scan("notes.py", text)
    assert found is not None
    assert found.line == 101
    assert secret not in repr(found)
    assert SCANNER.scan("notes.py", text) == plain("notes.py", text)
    assert SCANNER.scan("notes.py", "\n".join(PROSE)) is None


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from([*LINES, *PROSE[:8], "x_id = ", "# pragma: allowlist " + "secret", "é ſecret",
                                    "# pragma: allowlist nextline " + "secret", "\u2028", " := ", '"', "get("])
                   | st.text(max_size=8), max_size=8),
    ends=st.sampled_from(["\n", "\r\n", "\r", " ", "", "\x0b", "\xa0"]),
    path=st.sampled_from(["a.md", "a.py", "a.yaml", "a.go", "a.c", "a.cpp", "a.ini", "swagger.json"]),
)  # fmt: skip
def test_the_shortcut_changes_no_verdict(parts: list[str], ends: str, path: str) -> None:
    text = ends.join(parts).encode("utf-8", "ignore").decode()
    assert SCANNER.scan(path, text) == plain(path, text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_counts(end: str) -> None:
    assert SCANNER.scan("a.md", end.join(["one", "two", LINES[1], "four"])) == Finding("AWS Access Key", 3)


def test_what_a_pragma_allows_is_no_secret() -> None:
    allowed = "# pragma: allowlist " + "secret"
    assert SCANNER.scan("a.py", f"{LINES[1]}  {allowed}\n") is None
    assert SCANNER.scan("a.py", f"# pragma: allowlist nextline {'secret'}\n{LINES[1]}\n") is None
    assert SCANNER.scan("a.py", f"{allowed}\n{LINES[1]}\n") == Finding("AWS Access Key", 2)


def test_a_line_without_end_is_scanned_in_time() -> None:
    text = '{"u":"https://example.org/a:b/c"},' * 20_000
    assert SCANNER.scan("a.json", text + LINES[6] + text) == Finding("GitHub Token", 1)
    assert SCANNER.scan("a.json", text) is None


def test_a_detector_that_is_no_pattern_sees_every_line() -> None:
    text = "\n".join([*PROSE, f'x = "{(string.ascii_letters * 7)[::7]}"'])
    assert SecretScanner(["Base64HighEntropyString"]).scan("a.py", text) == Finding("Base64 High Entropy String", 161)
    assert SCANNER.scan("a.py", text) is None


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(GenomeError, match="no detector of secrets called 'AWSDetector'") as refused:
        SecretScanner(["AWSDetector"])
    assert refused.value.fix == "did you mean 'AWSKeyDetector'?"


def test_the_filters_are_those_of_detect_secrets() -> None:
    names = {path.rsplit(".", 1)[1] for path in Settings().filters}
    of_a_file = {"is_invalid_file", "is_non_text_file", "is_lock_file", "is_swagger_file"}
    of_a_line = {"is_line_allowlisted", "is_indirect_reference", "is_likely_id_string"}
    assert {one.__name__ for one in secrets._SECRET_FILTERS} == names - of_a_file - of_a_line


def test_letters_that_python_takes_for_ascii_ones_are_known() -> None:
    beyond = "".join(map(chr, range(0x80, sys.maxunicode + 1)))
    taken = {letter: "".join(re.findall(letter, beyond, re.IGNORECASE)) for letter in string.ascii_lowercase}
    assert {letter: set(found) for letter, found in taken.items() if found} == {
        letter: set(folded) for letter, folded in secrets._FOLDED.items()
    }


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^a\s+\d{3}\b(?!x)", "a\x1f\u2003\u0663\u0664\u0665"),
        (r"(?i:key)[^\W\d]+", "KEYé"),
        (r"(['\"])\w{20,30}?\1", '"' + "é" * 25 + '"'),
        (r"(?<=:)[^a-f\s]{40}", ":" + "Z" * 40),
        (r"(?i)contraseña|[a-z]{3}-x", "KIſ-X"),
        (r"a.[^b]\.", "a\u2028\x85."),
    ],
)
def test_what_a_pattern_matches_its_wider_form_matches(pattern: str, text: str) -> None:
    import re2

    assert re.search(pattern, text)
    assert re2.search(secrets._widened(re.compile(pattern)), text)
    assert not re2.search(secrets._widened(re.compile(pattern)), "- - -")
