"""Builds a genome from generated repositories, timed beside `git archive` and `sha256sum` of the same files."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORIES = 8
SMALLEST, LARGEST = 1 << 10, 1 << 18  # bytes of a file; sizes are spread evenly over the powers between
CLOCK = "1700000000 +0000"


def paragraphs(chance: random.Random) -> list[str]:
    """Lines of made-up prose, data and code, with links, digests and words such as `token` among them."""
    words = ["".join(chance.choices("abcdefghijklmnoprstuvwy", k=chance.randint(2, 10))) for _ in range(5000)]

    def some(count: int) -> str:
        return " ".join(chance.choices(words, k=count))

    lines = [f"{some(12)}.\n" for _ in range(8000)]
    lines += [f'  "{some(1)}": "{some(4)}",\n' for _ in range(2000)]
    lines += [f"def {some(1)}({some(1)}: int) -> str:\n    return {some(1)}[{some(1)}]\n" for _ in range(1000)]
    lines += [f"- [{some(2)}](https://example.org/{some(1)}/{some(1)}#{some(1)})\n" for _ in range(600)]
    lines += [f"sha256 {chance.randbytes(32).hex()}  {some(1)}\n" for _ in range(100)]
    lines += [f"The {some(1)} token and the password are {some(6)}.\n" for _ in range(100)]
    lines += [f"Größe und Maß: {some(8)} – 「{some(1)}」\n" for _ in range(400)]
    chance.shuffle(lines)
    return lines


def files(chance: random.Random, lines: list[str], total: int) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of one repository, `total` bytes and a little more."""
    made = number = 0
    while made < total:
        size = round(SMALLEST * (LARGEST / SMALLEST) ** chance.random())
        # A run of the shuffled lines, with a line of its own in front: no two files are the same.
        start, text = chance.randrange(len(lines)), [f"# file {number}\n"]
        length = 0
        while length < size:
            line = lines[start % len(lines)]
            text.append(line)
            length += len(line)
            start += chance.choice((1, 1, 1, 7))
        content = "".join(text).encode()
        suffix = chance.choice((".md", ".md", ".txt", ".json", ".py"))
        yield f"folder-{number % 37}/part-{number % 11}/file-{number}{suffix}", content
        made += len(content)
        number += 1


def make_repository(root: Path, chance: random.Random, lines: list[str], total: int) -> tuple[int, int]:
    """A repository with one packed commit and its work tree; how many files and bytes it has."""
    subprocess.run(["git", "init", "--quiet", "-b", "main", root], check=True)
    importer = subprocess.Popen(["git", "-C", root, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert importer.stdin is not None
    write = importer.stdin.write
    write(f"commit refs/heads/main\ncommitter bench <bench@example.org> {CLOCK}\ndata 5\nbench\n".encode())
    count = size = 0
    for path, content in files(chance, lines, total):
        write(f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
        count, size = count + 1, size + len(content)
    importer.stdin.close()
    if importer.wait():
        raise SystemExit("git fast-import failed")
    # As a server packs what is cloned; fast-import's own packs are slower to read, which would flatter the comparison.
    subprocess.run(["git", "-C", root, "repack", "-adfq"], check=True)
    subprocess.run(["git", "-C", root, "checkout", "--quiet", "main"], check=True)
    return count, size


def timed(*command: str | Path, cwd: Path) -> tuple[float, int]:
    """Seconds of a command and, in bytes, the most memory that it and its children held together."""
    start = time.perf_counter()
    with open(os.devnull, "wb") as null, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=cwd, stdout=null, stderr=errors)
        peak, watcher_stops = [0], threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, peak, watcher_stops))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        watcher_stops.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(map(str, command))} failed: {errors.read().decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, max(peak[0], usage.ru_maxrss * unit)


def watch(root: int, peak: list[int], stop: threading.Event) -> None:
    """Note the largest sum of the resident memory of a process and all its descendants; Linux only."""
    page = os.sysconf("SC_PAGE_SIZE")
    while Path("/proc/self/statm").exists() and not stop.wait(0.02):
        parents: dict[int, int] = {}
        for folder in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                parents[int(folder)] = int(Path(f"/proc/{folder}/stat").read_text().rpartition(")")[2].split()[1])
        family, total = {root}, 0
        while found := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= found
        for pid in family:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        peak[0] = max(peak[0], total)


def measure(directory: Path, rounds: int, size: int, count: int) -> None:
    roots = [directory / f"repository-{number}" for number in range(REPOSITORIES)]
    genome = [sys.executable, "-m", "chrysalis_mlx", "genome"]
    timed(*genome, "lock", *roots, cwd=directory)
    hasher = "sha256sum" if shutil.which("sha256sum") else "shasum -a 256"
    archive = 'for root in "$@"; do git -C "$root" archive HEAD; done'
    digest = f'for root in "$@"; do (cd "$root" && git ls-files -z | xargs -0 {hasher}); done'
    tasks: dict[str, list[str | Path]] = {
        "git archive": ["sh", "-c", archive, "sh", *roots],
        "sha256sum": ["sh", "-c", digest, "sh", *roots],
        "genome build": [*genome, "build", "-o", "genome.txt"],
        "genome verify": [*genome, "verify", "genome.txt"],
    }
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name, task in tasks.items():
            results[name].append(timed(*task, cwd=directory))
            seconds, memory = results[name][-1]
            line = f"round {number + 1}  {name:<14}{seconds:8.2f} s  {memory / 1e6:6.0f} MB"
            print(line, file=sys.stderr, flush=True)
    print(f"{count:,} files, {size:,} bytes in {REPOSITORIES} repositories; medians of {rounds} rounds")
    seconds = {name: statistics.median(item[0] for item in found) for name, found in results.items()}
    for name, found in results.items():
        peak = max(memory for _, memory in found)
        print(f"{name:<14}{seconds[name]:8.2f} s {size / seconds[name] / 1e6:8.0f} MB/s   peak {peak / 1e6:6.0f} MB")
    rounds_of = zip(results["genome build"], results["git archive"], results["sha256sum"], strict=True)
    ratios = [build[0] / (archived[0] + hashed[0]) for build, archived, hashed in rounds_of]
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"genome build / (git archive + sha256sum): {statistics.median(ratios):.2f} ({span})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of text, in all (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-genome-", dir=options.directory) as name:
        directory = Path(name)
        chance = random.Random(1)
        lines = paragraphs(chance)
        print(f"making {options.megabytes} MB of text", file=sys.stderr, flush=True)
        share = options.megabytes * 10**6 // REPOSITORIES
        made = [
            make_repository(directory / f"repository-{number}", chance, lines, share) for number in range(REPOSITORIES)
        ]
        measure(directory, options.rounds, sum(size for _, size in made), sum(count for count, _ in made))


if __name__ == "__main__":
    main()
