"""What a blueprint says: the one definition of configuration.

A blueprint decides what of a genome is expressed for a model and how the model is trained on it. Every field has a
default, a one-line meaning and, where it has one, a range; `load.py` turns YAML into these classes and checks them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from chrysalis_mlx.config import option
from chrysalis_mlx.gguf.quantize import TYPES

VERSION = 2


@dataclass(frozen=True)
class MatchSection:
    """Which models find this blueprint by themselves: those for which every rule holds that is set.

    With no rule set, nothing but its name finds it.
    """

    names: tuple[str, ...] = option(
        (), "globs on the model's name without its owner, of which one must match; case does not count"
    )
    model_types: tuple[str, ...] = option((), "model_type of its config.json; empty: any")
    min_parameters: float = option(0.0, "millions of parameters that it has at least", minimum=0.0)
    max_parameters: float | None = option(None, "millions of parameters that it stays below; null: any", minimum=0.0)
    variant: Literal["any", "base", "instruct"] = option(
        "any", "base: continues texts; instruct: has learned to answer"
    )
    min_memory: float = option(0.0, "gigabytes (10^9 bytes) that the machine must have", minimum=0.0)
    max_memory: float | None = option(
        None, "gigabytes that the machine stays below, where more can do better; null: any", minimum=0.0
    )


@dataclass(frozen=True)
class ModelSection:
    """Which model grows."""

    source: str | None = option(None, "local directory, Hub id or .gguf file; --model overrides it")
    revision: str | None = option(None, "commit, tag or branch of a Hub id")


@dataclass(frozen=True)
class GatesSection:
    """Quality gates: a file whose score lies beyond the threshold is left out; null opens a gate.

    The formulas are in corpus/select/: gates.py, logs.py, generated.py and boilerplate.py. Shares are of characters;
    white space around lines does not count.
    """

    min_characters: int = option(1, "shorter texts, counted without surrounding white space, are left out", minimum=1)
    min_zlib_ratio: float | None = option(
        0.07, "zlib size by size; source code is mostly over 0.15, prose over 0.3", minimum=0.0
    )
    max_repeated_lines: float | None = option(
        0.6, "share in lines that stand in the file before", minimum=0.0, maximum=1.0
    )
    max_repeated_ngrams: float | None = option(
        0.6, "share of the words that lie in a 10-gram which stands in the file before", minimum=0.0, maximum=1.0
    )
    max_symbols: float | None = option(0.7, "share of digits and symbols", minimum=0.0, maximum=1.0)
    max_log_lines: float | None = option(
        0.4, "share in lines that a running program wrote, told by their form", minimum=0.0, maximum=1.0
    )
    generated: bool = option(True, "leave out files that say they are generated, and minified ones")
    max_boilerplate: float | None = option(
        0.8, "share in lines that several repositories have in different files", minimum=0.0, maximum=1.0
    )
    boilerplate_repositories: int = option(3, "repositories that make a line boilerplate", minimum=2)


@dataclass(frozen=True)
class CopiesSection:
    """What is the same document. Similarity is the Jaccard index of the sets of 5-word shingles."""

    exact: bool = option(
        True, "leave out files that are equal but for line ends, white space before them and around the whole"
    )
    near: float | None = option(
        0.8, "leave out files at least so similar to an earlier one, equal ones too; null: none", minimum=0.3
    )
    family: float = option(
        0.5, "files connected by this similarity are one family; a split never divides it", minimum=0.3, maximum=1.0
    )
    backups: Literal["drop", "unique-only", "keep"] = option(
        "unique-only", "of backup repositories: nothing; files of which live ones hold less than half; or everything"
    )
    backup_repositories: tuple[str, ...] = option(
        ("*-backup", "*-backups", "backup", "backups"), "globs on the names of repositories that hold older copies"
    )


@dataclass(frozen=True)
class BudgetSection:
    """How much is expressed. In tokens of the files' contents, before framing."""

    total: int | None = option(None, "at most so many; backups, then the largest repositories give way", minimum=1)
    per_repository: int | None = option(None, "of each repository at most so many, in curriculum order", minimum=1)


@dataclass(frozen=True)
class ExpressionSection:
    """What of the genome the model sees. Patterns are globs on REPOSITORY/PATH; * also crosses slashes."""

    include: tuple[str, ...] = option(("*",), "a file must match one of these")
    exclude: tuple[str, ...] = option((), "and none of these")
    first: tuple[str, ...] = option(
        (), "globs on REPOSITORY or REPOSITORY/PATH that lead the curriculum, in this order"
    )
    last: tuple[str, ...] = option((), "globs that end it, in this order; the rest in genome order; backups after all")
    weights: dict[str, float] = option(
        {},
        "glob on a repository: how often its files are seen in an epoch, below 1 a fixed sample of them; the first "
        "match counts",
        minimum=0.0,
    )
    gates: GatesSection = field(default_factory=GatesSection)
    copies: CopiesSection = field(default_factory=CopiesSection)
    budget: BudgetSection = field(default_factory=BudgetSection)


@dataclass(frozen=True)
class MixSection:
    """How often in an epoch a file is framed in each way. 0.5 and 0.5: each file once, in one of two ways."""

    text: float = option(0.0, "header and content", minimum=0.0)
    completion: float = option(
        0.0, "repository, path and heading; then the section, which alone is learned", minimum=0.0
    )
    chat: float = option(
        0.0, "questions from headings, keys, docstrings and tables; answers, which alone are learned", minimum=0.0
    )
    fim: float = option(0.0, "code with a hole to fill in, where the tokenizer has tokens for it", minimum=0.0)
    history: float = option(
        0.0,
        "of each commit: its message; then the diff, which alone is learned; needs checkouts, or clones made with "
        "`history: true`",
        minimum=0.0,
    )


@dataclass(frozen=True)
class FramingSection:
    """How a file becomes training text. What cannot be framed one way is framed in the others of the mix."""

    mix: MixSection = field(default_factory=lambda: MixSection(text=1.0))
    header: str = option("# {repository}/{path}\n\n", "put before every chunk; {repository} and {path} are filled in")
    system: str | None = option(None, "system message of chats; null: what the model's template does without one")
    max_commits: int = option(
        200, "of each repository for `history`: the newest whose message tells something", minimum=1
    )


@dataclass(frozen=True)
class SplitSection:
    """Which documents are kept back. Shares are of documents; each side gets at least one."""

    valid: float = option(0.05, "share of the documents validated on during training", minimum=0.0, maximum=0.5)
    test: float = option(0.05, "share of the documents kept for `eval`", minimum=0.0, maximum=0.5)
    seed: int = option(0, "which documents these are", minimum=0)
    ngram: int = option(13, "words in a row that nothing kept back may share with other documents", minimum=2)


@dataclass(frozen=True)
class DataSection:
    """How rows of your own (`--data`) are treated, which no genome stands behind.

    The forms are in corpus/data/forms.py. Every row that is left out or changed is in expression.json, with its number.
    """

    form: Literal["auto", "messages", "sharegpt", "alpaca", "completion", "text"] = option(
        "auto", "form of the rows; auto: told for each file from its first row that can be"
    )
    gates: bool = option(False, "the quality gates judge every row")
    copies: bool = option(False, "exact and near copies of earlier rows are left out")
    split: Literal["auto", "own", "families"] = option(
        "auto",
        "own: as the files' names say, train, valid, test, and a missing one is taken from train; families: divided as "
        "a genome is; auto: own where a file is named train",
    )


@dataclass(frozen=True)
class OrderSection:
    """In what order the rows come."""

    kind: Literal["shuffled", "curriculum", "annealed"] = option(
        "shuffled", "shuffled anew each epoch; in curriculum order; or that, with earlier rows coming back in between"
    )
    replay: float = option(0.25, "of annealed: earlier rows for every new one", minimum=0.0)


@dataclass(frozen=True)
class AdapterSection:
    """What is trained: low-rank adapters beside frozen linear layers, or the layers' weights themselves."""

    kind: Literal["lora", "dora", "full"] = option(
        "lora", "lora (arXiv 2106.09685), dora (arXiv 2402.09353), or full: every weight of the chosen layers"
    )
    rank: int = option(8, "r: columns of B and rows of A", minimum=1)
    alpha: float = option(16.0, "the update is scaled by alpha / rank", minimum=0.0)
    rslora: bool = option(False, "scale by alpha / sqrt(rank) instead (arXiv 2312.03732)")
    dropout: float = option(
        0.0, "share of the adapter's inputs that are left out of a step, at random", minimum=0.0, maximum=0.95
    )
    layers: int | Literal["all"] = option("all", "all, or only so many transformer layers", minimum=1)
    side: Literal["last", "first"] = option("last", "which ones, when they are not all")
    modules: tuple[str, ...] = option(
        ("all-linear",), "names inside a layer (self_attn.q_proj), globs (*.q_proj), or all-linear"
    )
    ranks: dict[str, int] = option({}, "name or glob: the rank of these modules; the first match counts", minimum=1)
    alphas: dict[str, float] = option(
        {}, "name or glob: the alpha of these modules; the first match counts", minimum=0.0
    )


@dataclass(frozen=True)
class TrainingSection:
    """How it is trained: the batches, the optimizer and its schedule, and what watches over them."""

    row_length: int = option(1024, "tokens in one packed row", minimum=16)
    batch_size: int = option(1, "rows that pass through the model at once", minimum=1)
    gradient_accumulation: int = option(1, "micro-batches in one optimizer step", minimum=1)
    gradient_checkpointing: bool = option(
        False, "keep only the inputs of the layers, and compute the rest again: less memory, about a third more time"
    )
    steps: int = option(200, "optimizer steps", minimum=1)
    optimizer: Literal["adamw", "adam", "adafactor", "lion", "muon"] = option(
        "adamw", "lion is MLX's alone; adafactor holds the least memory"
    )
    learning_rate: float = option(2e-4, "peak learning rate", minimum=0.0)
    min_learning_rate: float = option(0.0, "learning rate at the last step", minimum=0.0)
    b_ratio: float = option(1.0, "learning rate of B over that of A (LoRA+, arXiv 2402.12354)", minimum=0.0)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = option(
        "cosine", "after the warm-up; wsd: constant, then a linear decay (arXiv 2404.06395)"
    )
    warmup_steps: int = option(10, "steps of linear warm-up", minimum=0)
    decay_share: float = option(0.2, "of wsd: the share of the steps that decay", minimum=0.0, maximum=1.0)
    weight_decay: float = option(0.0, "decoupled weight decay; never of 1-D parameters", minimum=0.0)
    beta1: float = option(0.9, "decay of the first moment; of muon: its momentum", minimum=0.0, maximum=0.9999)
    beta2: float = option(0.999, "decay of the second moment", minimum=0.0, maximum=0.999999)
    epsilon: float = option(1e-8, "added to the denominator of the update", minimum=1e-30)
    max_grad_norm: float = option(1.0, "the gradient's global norm is clipped to this; 0: not at all", minimum=0.0)
    validate_every: int = option(50, "steps between validations; the last step is always validated", minimum=1)
    max_valid_rows: int = option(32, "rows of the fixed validation set", minimum=1)
    patience: int | None = option(
        None, "stop after so many validations in a row that are no better than the best; null: never", minimum=1
    )
    checkpoint_every: int = option(50, "steps between checkpoints", minimum=1)
    keep: int = option(3, "checkpoints that are kept, beside the best one", minimum=1)
    spike: float | None = option(
        3.0,
        "a loss above so many times the median of the last 32 steps is a spike, and undone as NaN is; null: none is",
        minimum=1.1,
    )
    seed: int = option(0, "initial adapter, order of the rows, dropout", minimum=0)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "of the frozen base while training; auto: float32 on a CPU, the file's own on a GPU"
    )
    min_battery: int | None = option(
        20, "percent: on battery below this the training waits until it is charged; null: never", minimum=1, maximum=99
    )
    report_to: tuple[str, ...] = option((), "tensorboard, wandb, trackio: where the figures go besides metrics.jsonl")


@dataclass(frozen=True)
class EvaluationSection:
    """How the result is measured."""

    max_rows: int | None = option(None, "test rows to measure perplexity on; null: all", minimum=1)
    retention_tokens: int = option(
        2048, "tokens of the built-in general text, so that forgetting shows; 0: none", minimum=0
    )
    continuations: int = option(
        16, "texts of train, and as many of test, that are continued to see what is memorized; 0: none", minimum=0
    )
    continuation_tokens: int = option(64, "tokens of each continuation", minimum=16)
    prompts: tuple[str, ...] = option(
        ("Who are you?", "What is the capital of France?", "What is this collection of texts about?"),
        "answered before and after the training: greedily, and drawn with the seed",
    )
    answer_tokens: int = option(96, "tokens of an answer, at most", minimum=1)
    temperature: float = option(0.7, "of the drawn answers", minimum=0.01, maximum=10.0)
    seed: int = option(0, "of the drawn answers and of the bootstrap", minimum=0)
    resamples: int = option(1000, "bootstrap resamples behind the 95 % intervals", minimum=100)
    file_targets: int = option(
        256, "test tokens, and half as many general ones, that every GGUF is measured on; 0: no file is", minimum=0
    )


@dataclass(frozen=True)
class ExportSection:
    """What leaves the chrysalis."""

    quantize: tuple[str, ...] = option(
        ("F16", "Q8_0", "Q4_K_M"), f"one GGUF file for each of these types, of {', '.join(TYPES)}"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = option("float32", "of fused/; GGUF files do not depend on it")
    system: str | None = option(None, "system prompt written into the Modelfile")
    messages: tuple[str, ...] = option(
        (), "turns that Ollama puts before every conversation, the user's and the model's by turns"
    )
    context: int | None = option(None, "num_ctx of the Modelfile; null: the model's own, at most 8192", minimum=16)
    imatrix_tokens: int = option(
        16384, "training tokens that the importance matrix is collected from; 0: none is made", minimum=0
    )
    verify_lines: int = option(200, "corpus lines whose token ids are compared", minimum=1)
    verify_positions: int = option(256, "held-out positions whose distributions are compared", minimum=1)

    @property
    def turns(self) -> tuple[dict[str, str], ...]:
        """`messages` as a conversation: each a role and its content."""
        roles = itertools.cycle(("user", "assistant"))
        return tuple({"role": role, "content": text} for role, text in zip(roles, self.messages, strict=False))


@dataclass(frozen=True)
class Blueprint:
    """A whole blueprint."""

    version: int = option(VERSION, "of this schema", minimum=VERSION, maximum=VERSION)
    name: str = option("unnamed", "shown in reports and written into exported files")
    description: str = option("", "what it is for")
    match: MatchSection = field(default_factory=MatchSection)
    model: ModelSection = field(default_factory=ModelSection)
    expression: ExpressionSection = field(default_factory=ExpressionSection)
    framing: FramingSection = field(default_factory=FramingSection)
    data: DataSection = field(default_factory=DataSection)
    split: SplitSection = field(default_factory=SplitSection)
    order: OrderSection = field(default_factory=OrderSection)
    adapter: AdapterSection = field(default_factory=AdapterSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    export: ExportSection = field(default_factory=ExportSection)
