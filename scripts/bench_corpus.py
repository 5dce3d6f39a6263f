"""Times genome -> corpus at two sizes, beside tokenizing the same files once. Each measurement is a process."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chrysalis_mlx.blueprint.library import find_blueprint
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.corpus.build import corpus_of_genome
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome, write_genome
from chrysalis_mlx.models.source import resolve_tokenizer

_WORD = re.compile(r"[^\W\d_]{3,}")
_AT_ONCE = 64


def copies(genome: Path, count: int) -> Iterator[GenomeFile]:
    """The genome's files `count` times; in every copy but the first each word is another, about as frequent one.

    So no copy resembles another, and all are about as many tokens.
    """
    frequency = Counter(word for file in read_genome(genome) for word in _WORD.findall(file.text))
    ranked = [word for word, _ in sorted(frequency.items(), key=lambda item: (-item[1], item[0]))]
    ranks = {word: rank for rank, word in enumerate(ranked)}
    for copy in range(count):

        def other(match: re.Match[str], copy: int = copy) -> str:
            partner = ranks[match[0]] ^ copy  # a different one in each copy, and each is the partner of one
            return ranked[partner] if partner < len(ranked) else match[0]

        for file in read_genome(genome):
            # A backup repository keeps a name that says so.
            repository = f"{copy}-{file.repository}" if copy else file.repository
            yield GenomeFile(repository, file.path, _WORD.sub(other, file.text) if copy else file.text)


def make(genome: Path, model: str, blueprint: str, directory: Path) -> None:
    tokenizer = resolve_tokenizer(model)
    corpus = corpus_of_genome(genome, load_blueprint(find_blueprint(blueprint)), tokenizer)
    report = write_corpus(corpus, directory, tokenizer)
    print(f"    {report['expressed']} of {report['considered']} files, {sum(report['tokens'].values()):,} tokens")


def tokenize(genome: Path, model: str) -> None:
    tokenizer = resolve_tokenizer(model)
    block: list[str] = []
    for file in read_genome(genome):
        block.append(file.text)
        if len(block) == _AT_ONCE:
            tokenizer.encode_batch(block)
            block = []
    tokenizer.encode_batch(block)


def measured(name: str, function: object, *arguments: object) -> float:
    """Run a function in a process of its own; print and return its seconds."""
    sys.stdout.flush()
    began = time.perf_counter()
    child = os.fork()
    if not child:
        function(*arguments)  # type: ignore[operator]
        sys.stdout.flush()
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{name} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{name:34} {seconds:8.1f} s   peak {peak / 1e6:8.0f} MB")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("genome", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--blueprint", default="smollm2-135m-instruct")
    parser.add_argument("--copies", type=int, default=10)
    arguments = parser.parse_args()
    model, blueprint = arguments.model, arguments.blueprint
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        seconds = []
        for count in (1, arguments.copies):
            genome = work / f"{count}.txt"
            size = write_genome(copies(arguments.genome, count), genome).bytes
            print(f"{size:,} bytes")
            once = measured("  tokenizing every file once", tokenize, genome, model)
            corpora = [work / f"{count}-{again}" for again in ("a", "b")]
            made = measured(f"  genome -> corpus, {blueprint}", make, genome, model, blueprint, corpora[0])
            print(f"  {made / once:.2f} times tokenizing it")
            seconds.append(made)
            if count == 1:
                measured("  again", make, genome, model, blueprint, corpora[1])
                same = all(
                    file.read_bytes() == (corpora[1] / file.relative_to(corpora[0])).read_bytes()
                    for file in corpora[0].rglob("*.json*")
                )
                print(f"  the same bytes: {'yes' if same else 'NO'}")
        print(f"{arguments.copies} times the genome took {seconds[1] / seconds[0]:.1f} times as long")


if __name__ == "__main__":
    main()
