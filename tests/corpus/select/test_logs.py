"""Logs of many programs are told from texts, tables and code that look like them."""

import random
import time
from collections.abc import Callable
from pydoc_data.topics import topics

import pytest

from chrysalis_mlx.blueprint.schema import GatesSection
from chrysalis_mlx.corpus.select.logs import log_lines

MOST = GatesSection().max_log_lines
# Text that people wrote: Python's language reference.
WORDS = [word for topic in sorted(topics) for word in topics[topic].split()]


def lines(count: int, write: Callable[[random.Random, int], str]) -> str:
    chance = random.Random(0)
    return "\n".join(write(chance, number) for number in range(count))


def name(chance: random.Random) -> str:
    return "".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(4, 9)))


def sentence(chance: random.Random, words: int) -> str:
    start = chance.randrange(len(WORDS) - words)
    return " ".join(WORDS[start : start + words])


def clock(number: int) -> str:
    return f"{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"


def access_log(chance: random.Random, number: int) -> str:
    return (
        f"10.0.{chance.randrange(255)}.{chance.randrange(255)} - - [10/Oct/2023:{clock(number)} +0200] "
        f'"GET /{name(chance)}/{chance.randrange(999)} HTTP/1.1" 200 {chance.randrange(9999)} "-" "Mozilla/5.0 (X11)"'
    )


def syslog(chance: random.Random, number: int) -> str:
    report = chance.choice(
        [
            f"sshd[{chance.randrange(9999)}]: Accepted publickey for {name(chance)} from 10.1.2.3 port 22 ssh2",
            f"systemd[1]: Started Session {number} of user {name(chance)}.",
            f"kernel: [{number}.123456] usb 1-1: new high-speed USB device number {number} using xhci_hcd",
        ]
    )
    return f"Nov  4 {clock(number)} host {report}"


def json_log(chance: random.Random, number: int) -> str:
    return (
        f'{{"ts":"2024-05-01T{clock(number)}Z","level":"info","msg":"job done","job":"{name(chance)}",'
        f'"trace":"{chance.getrandbits(64):016x}","ms":{chance.randrange(999)}}}'
    )


def verbose_tests(chance: random.Random, number: int) -> str:
    return f"tests/test_{name(chance)}.py::test_{name(chance)} PASSED [{number // 2:3}%]"


def frames(chance: random.Random, number: int) -> str:
    return (
        f'  File "/srv/{name(chance)}/{name(chance)}.py", line {number}, in {name(chance)}\n    return {name(chance)}()'
    )


def java_frames(chance: random.Random, number: int) -> str:
    if number % 10 == 0:
        return f"java.lang.IllegalStateException: {name(chance)} is closed"
    return f"\tat org.{name(chance)}.{name(chance)}.run({name(chance).title()}.java:{number})"


LOGS = {
    "web server": access_log,
    "system": syslog,
    "JSON lines": json_log,
    "verbose tests": verbose_tests,
    "Python stacks": frames,
    "Java stacks": java_frames,
    "kernel": lambda c, n: f"[{n:5}.{c.randrange(10**6):06}] usb {name(c)}: new device number {n} using xhci_hcd",
    "training": lambda c, n: (
        f"Iter {n}: Train loss {c.random():.3f}, Learning Rate 1.0e-05, Tokens/sec {c.random():.1f}"
    ),
    "levels": lambda c, n: f"WARNING:root:retry {n} of request {c.getrandbits(40):010x} to {name(c)} after timeout",
    "game": lambda c, n: f"[{clock(n)}] Blue node spawned at ({c.randrange(800)}, {c.randrange(600)})",
    "progress bar": lambda c, n: f"{n:3}%|{'#' * (n // 9):22}| {n}/200 [00:{n % 60:02}<00:09, {c.random():.2f}it/s]\r",
}

TEXTS = {
    "changelog": lambda c, n: f"## [1.{n}.0] - 2024-02-{n % 28:02}\n\n- {sentence(c, 9)}\n- {sentence(c, 6)}\n",
    "numbered list": lambda c, n: f"{n}. {sentence(c, 5)}",
    "bibliography": lambda c, n: (
        f"[{n}] {name(c).title()}, {sentence(c, 6)}. {name(c).title()} {n}, 20{n % 24:02}, 1-{n}."
    ),
    "prices": lambda c, n: f"| {name(c)} | {c.randrange(90)}.{c.randrange(99):02} EUR | {c.randrange(50)} in stock |",
    "CSV with names": lambda c, n: f"{name(c)},{c.random():.3f},{c.randrange(2000)},{name(c)}",
    "CSV of numbers": lambda c, n: f"{n},{c.random():.3f},{c.randrange(2000)}",
    "JSON records": lambda c, n: f'{{"id": {n}, "name": "{name(c)}", "height": {c.random():.2f}}},',
    "indented JSON": lambda c, n: (
        f'  {{\n    "id": {n},\n    "title": "{sentence(c, 4)}",\n    "year": 20{n % 24:02}\n  }},'
    ),
    "dated records": lambda c, n: f'{{"at": "2024-05-01T{clock(n)}Z", "text": "{sentence(c, 12)}"}}',
    "transcript": lambda c, n: f"[{clock(n)}] <{c.choice(['anna', 'ben'])}> {sentence(c, 8)}",
    "subtitles": lambda c, n: f"{n}\n{clock(n)},000 --> {clock(n + 1)},500\n{sentence(c, 8)}\n",
    "keys": lambda c, n: "".join(c.choices("ABCDEFghijklmnopQRSTuvwxyz0123456789+/", k=64)),
    "checksums": lambda c, n: f"{c.getrandbits(256):064x}  {name(c)}.md",
    "assertions": lambda c, n: f"    assert {name(c)}({n}, {c.randrange(9)}) == {c.randrange(99)}",
    "constants": lambda c, n: f"#define {name(c).upper()}_{name(c).upper()} 0x{n:04x}",
    "poem": lambda c, n: (
        f"{sentence(c, 5)}\n99 bottles, 98 bottles\non the wall they stand" if n % 2 else sentence(c, 6)
    ),
}


@pytest.mark.parametrize("kind", LOGS)
def test_logs_are_over_the_default_threshold(kind: str) -> None:
    assert MOST is not None
    assert log_lines(lines(150, LOGS[kind])) > MOST + 0.05


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_tables_and_code_are_under_it(kind: str) -> None:
    assert MOST is not None
    assert log_lines(lines(150, TEXTS[kind])) < MOST - 0.1


def test_the_score_is_the_share_of_the_characters() -> None:
    log = [f"step {number} loss 0.{number}" for number in range(10, 20)]
    text = "x" * 50
    assert [len(line) for line in log] == [17] * 10
    assert log_lines("\n".join([text, *log, "", f"  {text}  "])) == pytest.approx(170 / 270)


def test_a_log_line_that_stands_twice_counts_twice() -> None:
    log = [f"step {number} loss 0.{number}" for number in range(10, 18)]
    assert log_lines("\n".join([*log, *log, "y" * 68])) == pytest.approx(16 * 17 / (16 * 17 + 68))


def test_a_progress_bar_that_is_drawn_over_itself_is_many_lines() -> None:
    assert log_lines(lines(150, LOGS["progress bar"]).replace("\n", "")) == 1.0


def test_seven_lines_are_no_log() -> None:
    assert log_lines(lines(7, LOGS["game"])) == 0.0
    assert log_lines(lines(8, LOGS["game"])) == 1.0


@pytest.mark.parametrize("text", ["", "\n\n", "no number here\n" * 20])
def test_without_numbers_there_is_no_log(text: str) -> None:
    assert log_lines(text) == 0.0


@pytest.mark.parametrize("unit", ["at a:1(", "[1] 1:11:", "deadbeef1", 'File "', "1%|"])
def test_adverse_text_takes_linear_time(unit: str) -> None:
    text = "\n".join([unit * 100_000, *(f"{number} {unit}" for number in range(9))])
    start = time.process_time()
    log_lines(text)
    assert time.process_time() - start < 2.0
