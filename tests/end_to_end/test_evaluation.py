"""evaluation.json, computed a second time by other means: transformers, llama.cpp, and plain Python."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from chrysalis_mlx.batches.tokens import Segment, read_segments
from chrysalis_mlx.evaluation.general import general_segments
from chrysalis_mlx.evaluation.journal import exclusive
from chrysalis_mlx.evaluation.results import Evaluation, Score, Texts, read_evaluation
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.pipeline import evaluate as stage
from tests import tiny
from tests.corpus.genomes import chapter, prose, rows_of, said
from tests.end_to_end.inputs import call, origin, report

ROW_LENGTH, SEED, RESAMPLES, FILE_TARGETS = 128, 5, 200, 48
CONTINUED, ANSWERED = 24, 8
PROMPTS = ["What is a larva?", "Who are you?"]
BLUEPRINT = f"""\
name: measured
split: {{valid: 0.1, test: 0.35}}
framing: {{mix: {{text: 0.5, completion: 0.5}}}}
adapter: {{rank: 4, alpha: 8}}
training:
  {{row_length: {ROW_LENGTH}, batch_size: 2, steps: 6, warmup_steps: 1, learning_rate: 1e-2, max_valid_rows: 2}}
evaluation:
  retention_tokens: 256
  continuations: 3
  continuation_tokens: {CONTINUED}
  prompts: {json.dumps(PROMPTS)}
  answer_tokens: {ANSWERED}
  seed: {SEED}
  resamples: {RESAMPLES}
  file_targets: {FILE_TARGETS}
export: {{quantize: [F16, Q4_K_M], imatrix_tokens: 0, verify_lines: 5, verify_positions: 2}}
"""
# What a loss in float32 may differ by from one in float64 of another framework, and what half precision costs.
EXACT, HALF = 1e-5, 1e-3

# The program, killed at the nth piece of work: before its answer, after it, or when half of its line is written.
KILLS = """
import importlib, json, os, signal, sys
from chrysalis_mlx import backends
from chrysalis_mlx.cli import main
from chrysalis_mlx.evaluation.journal import Journal
import chrysalis_mlx.cli.eval, chrysalis_mlx.pipeline.evaluate

backends.load("mlx")
importlib.import_module("mlx_lm.models.llama")

def kill(number, when):
    get, calls = Journal.get, []

    def counted(self, work, answer):
        calls.append(work)
        here = len(calls) == number
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = get(self, work, answer)
        if here and when == "half":
            os.truncate(self._file, self._file.stat().st_size - 7)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    Journal.get = counted

for site in sys.stdin:
    process = os.fork()
    if not process:
        kill(*json.loads(site))
        os._exit(main(["eval", sys.argv[1]]))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def write_inputs(directory: Path) -> None:
    """genome.txt (three repositories) and blueprint.yaml."""
    directory.mkdir(exist_ok=True)
    files = [GenomeFile("docs" if n < 7 else "notes", f"{n}.md", chapter(n)) for n in range(14)]
    files += [GenomeFile("plain", f"{n}.txt", prose(n)) for n in range(50, 56)]
    write_genome(files, directory / "genome.txt")
    (directory / "blueprint.yaml").write_text(BLUEPRINT)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run; nobody writes to it."""
    directory = tmp_path_factory.mktemp("measured")
    write_inputs(directory)
    command = [sys.executable, "-m", "chrysalis_mlx", "grow", directory / "run", *origin(directory, tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "run"


@pytest.fixture(scope="module")
def evaluation(grown: Path) -> Evaluation:
    return read_evaluation(grown / "evaluation.json")


@pytest.fixture
def run(grown: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(grown, tmp_path / "run"))


class Reference:
    """A model in transformers, asked for one text at a time; its sums are in float64."""

    def __init__(self, directory: Path) -> None:
        self._model = transformers.AutoModelForCausalLM.from_pretrained(directory)

    def log_p(self, tokens: Iterable[int]) -> np.ndarray:
        """(n, V)."""
        with torch.no_grad():
            logits = self._model(torch.tensor([list(tokens)])).logits[0].double()
        found: np.ndarray = torch.log_softmax(logits, -1).numpy()
        return found

    def losses(self, segment: Segment) -> np.ndarray:
        """-log p of each target."""
        places = np.flatnonzero(segment.supervised)
        found: np.ndarray = -self.log_p(segment.tokens)[places - 1, segment.tokens[places]]
        return found


@pytest.fixture(scope="module")
def references(grown: Path, tiny_model: Path) -> dict[str, Reference]:
    return {"base": Reference(tiny_model), "tuned": Reference(grown / "fused")}


@pytest.fixture(scope="module")
def held_out(grown: Path, tiny_model: Path) -> list[tuple[dict[str, Any], Segment]]:
    """The rows of test.jsonl and their tokens."""
    file = grown / "corpus/test.jsonl"
    return list(zip(rows_of(file), read_segments(file, Tokenizer.open(tiny_model), ROW_LENGTH), strict=True))


def journal(run: Path, name: str) -> dict[str, Any]:
    lines = (run / f"evaluation/{name}.jsonl").read_text().splitlines()[1:]
    return {entry["work"]: entry["answer"] for entry in map(json.loads, lines)}


def grouped(losses: Mapping[int, np.ndarray], names: Mapping[int, Any]) -> dict[Any, list[float]]:
    found: dict[Any, list[float]] = {}
    for number, values in losses.items():
        found.setdefault(names[number], []).extend(values.tolist())
    return found


def assert_same(found: Score, losses: Iterable[float], tolerance: float) -> None:
    values = list(losses)
    assert found.targets == len(values)
    assert found.loss == pytest.approx(math.fsum(values) / len(values), rel=tolerance)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def assert_same_texts(
    found: Texts, losses: Mapping[int, np.ndarray], rows: list[dict[str, Any]], tolerance: float
) -> None:
    assert_same(found.overall, (value for values in losses.values() for value in values.tolist()), tolerance)
    for key, scores in (("repository", found.repositories), ("framing", found.framings)):
        expected = grouped(losses, {number: rows[number][key] for number in losses})
        assert list(scores) == sorted(expected)
        for name, score in scores.items():
            assert_same(score, expected[name], tolerance)
    documents = {(rows[number]["repository"], rows[number]["path"]) for number in losses}
    assert found.overall.documents == len(documents)


def test_losses_are_those_of_full_logits_in_transformers(
    evaluation: Evaluation,
    references: dict[str, Reference],
    held_out: list[tuple[dict[str, Any], Segment]],
    tiny_model: Path,
) -> None:
    rows = [row for row, _ in held_out]
    assert {row["framing"] for row in rows} == {"text", "completion"}
    general = general_segments(Tokenizer.open(tiny_model), 256, ROW_LENGTH)
    for subject in (evaluation.base, evaluation.tuned):
        reference = references[subject.name]
        losses = {number: reference.losses(segment) for number, (_, segment) in enumerate(held_out)}
        assert_same_texts(subject.test, losses, rows, EXACT)
        assert subject.general is not None
        assert_same(subject.general, (value for segment in general for value in reference.losses(segment)), EXACT)
        assert subject.general.documents == len(general)
    for name, base, tuned in (
        ("test", evaluation.base.test.overall, evaluation.tuned.test.overall),
        ("general", evaluation.base.general, evaluation.tuned.general),
    ):
        assert base is not None
        assert tuned is not None
        assert evaluation.changes[name].ratio == pytest.approx(tuned.perplexity / base.perplexity)
    assert evaluation.changes["test"].ratio < 0.8


def test_intervals_are_those_of_a_bootstrap_in_plain_python(
    evaluation: Evaluation, references: dict[str, Reference], held_out: list[tuple[dict[str, Any], Segment]]
) -> None:
    names = [(row["repository"], row["path"]) for row, _ in held_out]
    sums: dict[str, list[tuple[float, int]]] = {}
    for name, reference in references.items():
        losses = {number: reference.losses(segment) for number, (_, segment) in enumerate(held_out)}
        documents = grouped(losses, dict(enumerate(names)))
        sums[name] = [(math.fsum(values), len(values)) for values in documents.values()]
    draws = np.random.default_rng(SEED).integers(0, len(sums["base"]), (RESAMPLES, len(sums["base"]))).tolist()

    def interval(values: Iterable[float]) -> tuple[float, float]:
        ordered = sorted(values)
        left_out = int((RESAMPLES + 1) * 0.025)
        return ordered[left_out - 1], ordered[-left_out]

    def perplexities(name: str) -> list[float]:
        return [
            math.exp(sum(sums[name][i][0] for i in drawn) / sum(sums[name][i][1] for i in drawn)) for drawn in draws
        ]

    for subject in (evaluation.base, evaluation.tuned):
        found = subject.test.overall.interval
        assert found is not None
        assert (found.low, found.high) == pytest.approx(interval(perplexities(subject.name)), rel=EXACT)
    change = evaluation.changes["test"].interval
    assert change is not None
    ratios = [tuned / base for tuned, base in zip(perplexities("tuned"), perplexities("base"), strict=True)]
    assert (change.low, change.high) == pytest.approx(interval(ratios), rel=EXACT)


def test_a_file_is_measured_on_tokens_spread_over_the_texts_and_compared_on_the_same(
    grown: Path,
    evaluation: Evaluation,
    references: dict[str, Reference],
    held_out: list[tuple[dict[str, Any], Segment]],
) -> None:
    assert list(evaluation.files) == ["F16", "Q4_K_M"]
    rows = [row for row, _ in held_out]
    for name, subject in evaluation.files.items():
        told = {
            int(n): values
            for work, part in journal(grown, name).items()
            if work[:4] == "test"
            for n, values in part.items()
        }
        places = {}
        for number, values in told.items():
            learned = np.flatnonzero(held_out[number][1].supervised)
            count = len(values)
            places[number] = [int(learned[(i * len(learned) + len(learned) // 2) // count]) for i in range(count)]
        assert sum(map(len, places.values())) == FILE_TARGETS
        assert subject.general is not None
        assert subject.general.targets == FILE_TARGETS // 2
        tuned = {}
        with LlamaServer(grown / str(subject.file), precise=True) as server:
            own = {}
            for number, kept in places.items():
                tokens = held_out[number][1].tokens
                tuned[number] = np.array(
                    [-references["tuned"].log_p(tokens)[place - 1, tokens[place]] for place in kept]
                )
                own[number] = np.array(
                    [of_llamacpp(server, tokens[:place].tolist(), int(tokens[place])) for place in kept]
                )
        assert_same_texts(subject.test, own, rows, 1e-4)
        ratio = math.exp(np.mean(np.concatenate(list(own.values()))) - np.mean(np.concatenate(list(tuned.values()))))
        assert subject.against["test"].ratio == pytest.approx(ratio, rel=1e-3)
    assert evaluation.files["F16"].against["test"].ratio == pytest.approx(1, abs=HALF)
    assert evaluation.files["F16"].against["general"].ratio == pytest.approx(1, abs=HALF)
    assert abs(math.log(evaluation.files["Q4_K_M"].against["test"].ratio)) > 2 * HALF


def of_llamacpp(server: LlamaServer, context: list[int], target: int) -> float:
    """-log p by the whole distribution."""
    ids, log_p = server.next_token_logprobs(context, 512)
    return -float(log_p[ids == target][0])


def longest_copy(text: str, prompt: str, corpus: list[str]) -> int:
    runs = (text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1))
    return max((len(run) for run in runs if run not in prompt and any(run in other for other in corpus)), default=0)


def test_copies_are_those_that_plain_python_finds(grown: Path, evaluation: Evaluation) -> None:
    sides = {side: rows_of(grown / f"corpus/{side}.jsonl") for side in ("train", "valid", "test")}
    rows = {"train": sides["train"], "held_out": [*sides["valid"], *sides["test"]]}
    parts = ("text", "prompt", "completion")
    corpora = {source: [row[part] for row in some for part in parts if part in row] for source, some in rows.items()}
    for subject in evaluation.subjects:
        assert [found.source for found in subject.continuations] == ["train"] * 3 + ["held_out"] * 3
        for found in subject.continuations:
            own = [said(row) for row in rows[found.source] if row["path"] == found.path]
            assert any(found.prompt + found.expected in text for text in own)
            assert found.copied == longest_copy(found.text, found.prompt, corpora[found.source])
        for source, copies in subject.copying.items():
            lengths = [found.copied for found in subject.continuations if found.source == source]
            assert (copies.continuations, copies.longest) == (3, max(lengths))
            assert copies.copies == sum(length >= 50 for length in lengths)


def test_greedy_tokens_are_the_likeliest_of_the_whole_text_in_transformers(
    grown: Path, references: dict[str, Reference], tiny_model: Path
) -> None:
    tokenizer = Tokenizer.open(tiny_model)
    assert tokenizer.chat is not None
    for name, reference in references.items():
        for number, prompt in enumerate(PROMPTS):
            shown = tokenizer.chat.render([{"role": "user", "content": prompt}], add_generation_prompt=True)
            tokens = tokenizer.encode(shown, special=False)
            greedy, sampled = journal(grown, name)[f"answers {number}"]
            likeliest = reference.log_p([*tokens, *greedy]).argmax(axis=-1)[len(tokens) - 1 : -1].tolist()
            assert greedy == likeliest
            assert len(greedy) == ANSWERED or tokenizer.eos_id == likeliest[-1]
            generator, drawn = np.random.Generator(np.random.PCG64(SEED)), []
            log_p = reference.log_p([*tokens, *sampled])[len(tokens) - 1 :]
            for row in log_p[: len(sampled)]:
                p = np.exp(row / 0.7)
                drawn.append(int(np.argmax(p.cumsum() / p.sum() > generator.random())))
            assert drawn == sampled


def test_the_other_backend_says_the_same(run: Path, evaluation: Evaluation, capfd: pytest.CaptureFixture[str]) -> None:
    files = {name: (run / f"evaluation/{name}.jsonl").read_bytes() for name in evaluation.files}
    told = report(capfd, "eval", run, "--backend", "torch")
    assert (told["skipped"], told["report"]["backend"]) == (False, "torch")
    other = read_evaluation(run / "evaluation.json")
    for found, expected in zip(other.subjects, evaluation.subjects, strict=True):
        assert found.test.overall.loss == pytest.approx(expected.test.overall.loss, rel=EXACT)
        assert found.answers == expected.answers
        assert found.continuations == expected.continuations
    assert other.changes["general"].ratio == pytest.approx(evaluation.changes["general"].ratio, rel=1e-4)
    assert other.files["F16"].against["test"].ratio == pytest.approx(1, abs=HALF)
    assert {name: (run / f"evaluation/{name}.jsonl").read_bytes() for name in files} == files  # not asked again


def test_killed_again_and_again_it_ends_byte_for_byte_like_one_that_never_stopped(grown: Path, run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    (run / "evaluation.json").unlink()
    total = sum(len(journal(grown, name)) for name in ("base", "tuned", "F16"))
    base = len(journal(grown, "base"))
    # How many pieces are left is counted anew with every start.
    sites = [(1, "before"), (2, "half"), (base, "after"), (total - base - 3, "half")]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", KILLS, str(run)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for site in sites:
            program.stdin.write(json.dumps(site) + "\n")
            assert (site, program.stdout.readline()) == (site, f"{-signal.SIGKILL}\n")
            assert not (run / "evaluation.json").exists()
        program.stdin.close()
    done = subprocess.run([sys.executable, "-m", "chrysalis_mlx", "eval", run], capture_output=True, check=False)
    assert done.returncode == 0
    for file in ("evaluation.json", *(f"evaluation/{name}.jsonl" for name in ("base", "tuned", "F16", "Q4_K_M"))):
        assert (run / file).read_bytes() == (grown / file).read_bytes(), file


def test_what_is_known_is_not_asked_again(
    run: Path, grown: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(stage, "open_engine", refused)
    monkeypatch.setattr(stage, "LlamaServer", refused)
    assert report(capfd, "eval", run)["skipped"] is True
    (run / "evaluation.json").unlink()
    assert report(capfd, "eval", run)["skipped"] is False
    assert (run / "evaluation.json").read_bytes() == (grown / "evaluation.json").read_bytes()

    (run / "export/model-F16.gguf").unlink()  # what is no longer there is no longer told of
    assert report(capfd, "eval", run)["skipped"] is False
    assert list(read_evaluation(run / "evaluation.json").files) == ["Q4_K_M"]
    record = json.loads((run / "run.json").read_text())
    record["stages"]["fuse"]["report"]["gguf"]["Q4_K_M"]["verified"] = False
    (run / "run.json").write_text(json.dumps(record))
    report(capfd, "eval", run)
    assert read_evaluation(run / "evaluation.json").files == {}


def test_the_table_fits_into_eighty_columns(
    grown: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(capfd, "eval", grown)
    assert status == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("base", "tuned", "F16", "Q4_K_M", "docs", "notes", "plain", "completion", "text"):
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1, name
    assert re.search(r"files: 48 of these tokens", out)


def test_the_card_tells_of_it(grown: Path, evaluation: Evaluation) -> None:
    card = (grown / "export/README.md").read_text()
    assert f"| tuned | {evaluation.tuned.test.overall.perplexity:.3f} |" in card


def test_two_evaluations_at_once_do_not_mix_up_what_they_are_answered(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in [run / "run.json", *(run / "evaluation").iterdir()]}
    with exclusive(run / "evaluation"):
        status, _, err = call(capfd, "eval", run, "--backend", "torch")
    assert (status, "another process is evaluating this run" in err) == (1, True)
    assert {path: path.read_bytes() for path in before} == before


def test_texts_that_outgrow_the_context_or_a_window_that_mlx_lacks_are_cut_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny.tiny_gemma2(
        tmp_path / "model", sliding_window=ROW_LENGTH, query_pre_attn_scalar=16, max_position_embeddings=160
    )
    write_inputs(tmp_path)
    blueprint = BLUEPRINT.replace(f"continuation_tokens: {CONTINUED}", "continuation_tokens: 200")
    (tmp_path / "blueprint.yaml").write_text(blueprint)
    run = tmp_path / "run"
    report(capfd, "corpus", run, *origin(tmp_path, model))
    report(capfd, "train", run)
    told = report(capfd, "eval", run)
    fitting, *cut = told["notes"]
    assert fitting == "continuations have 128 tokens: more do not fit into the model's context"
    assert [note.split(":")[0] for note in cut] == ["base model", "tuned model"]
    assert all("texts of 129 tokens exceed the model's sliding window of 128" in note for note in cut)
    # 32 tokens of the beginning, and one more than the window has room for: the last one is not asked for again.
    lengths = {len(tokens) for tokens in journal(run, "base")["continuations 0"]}
    assert max(lengths) == ROW_LENGTH - 32 + 1
    (run / "evaluation.json").unlink()
    assert report(capfd, "eval", run)["notes"] == told["notes"]  # though nothing was asked again


@pytest.mark.parametrize("template", [None, "{{ raise_exception('ask me nothing') }}"])
def test_a_model_without_a_template_or_with_one_that_refuses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], template: str | None
) -> None:
    model = tiny.tiny_llama(tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings.pop("chat_template")
    (model / "tokenizer_config.json").write_text(
        json.dumps(settings | ({"chat_template": template} if template else {}))
    )
    write_inputs(tmp_path)
    run = tmp_path / "run"
    report(capfd, "corpus", run, *origin(tmp_path, model))
    report(capfd, "train", run)
    status, out, err = call(capfd, "eval", run)
    assert status == 0, err
    note = f"note: the prompt '{PROMPTS[0]}' is continued, not answered: the model's chat template refuses"
    assert (note in out, "ask me nothing" in out) == (template is not None, template is not None)
    answers = read_evaluation(run / "evaluation.json").tuned.answers
    assert [answer.prompt for answer in answers] == PROMPTS
    assert all(answer.greedy for answer in answers)
