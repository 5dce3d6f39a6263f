"""The house keeps its shape: which room may import which, and no file grows out of hand."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chrysalis_mlx

PACKAGE = Path(__file__).parents[1] / "chrysalis_mlx"

# Low to high. A room may import itself, the package's root (its version) and what stands beside it here.
DATA = "models adapters blueprint batches genome"
STAGES = "corpus training evaluation export"
ALL = f"errors progress run gguf llamacpp {DATA} {STAGES} backends machine workspace"
ROOMS = {
    "errors": "",
    "progress": "",
    "config": "",
    "records": "",
    "run": "errors",
    "gguf": "errors run models",
    "models": "errors run gguf",
    "adapters": "errors models",
    "blueprint": "errors config gguf adapters models",
    "batches": "errors run models",
    "genome": "errors progress config run",
    "llamacpp": "errors",
    "backends": "errors progress models adapters batches",
    "machine": "errors backends",
    "corpus": "errors progress run models blueprint batches genome",
    "training": f"errors progress run gguf {DATA} corpus backends machine",
    "evaluation": f"errors progress records run gguf llamacpp {DATA} corpus backends machine",
    "export": f"errors progress records run gguf llamacpp {DATA} corpus evaluation backends machine",
    "workspace": f"errors run gguf {DATA} backends machine",
    "pipeline": ALL,
    "conversion": f"errors progress run gguf {DATA} export backends machine",
    "inference": f"{ALL} pipeline",
    "report": f"{ALL} records",
    "hub": "errors progress run models genome evaluation export",
    "doctor": "errors run models backends machine",
    "library": f"{ALL} records pipeline conversion inference report hub doctor",
    "cli": f"{ALL} pipeline conversion inference report hub doctor library",
    "__main__": "cli",
}

# What the other rooms see of the backends. The frameworks behind them are reached through `backends.load`.
BACKENDS_SEEN = {f"chrysalis_mlx.backends{module}" for module in ("", ".base", ".facts", ".measure")}

# These come in through one door.
DOORS = {
    "mlx": "backends",
    "mlx_lm": "backends",
    "torch": "backends",
    "transformers": "backends",
    "peft": "backends",
    "click": "cli",
    "rich": "cli",
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports(file: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                here = ["chrysalis_mlx", *file.split("/")[:-1]]
                module = ".".join([*here[: len(here) - node.level + 1], *filter(None, [module])])
            for alias in node.names:
                # A name may be a module: `from chrysalis_mlx import run`, `from chrysalis_mlx.backends import mlx`.
                base = PACKAGE.parent.joinpath(*module.split("."), alias.name)
                is_module = base.is_dir() or base.with_suffix(".py").is_file()
                yield node.lineno, f"{module}.{alias.name}" if is_module else module


def forbidden(file: str) -> Iterator[str]:
    own = room(file)
    for line, name in imports(file):
        where = f"{file}:{line} imports {name}"
        top, *rest = name.split(".")
        if DOORS.get(top, own) != own:
            yield f"{where}; only {DOORS[top]}/ may"
        if top != "chrysalis_mlx" or not rest or rest[0] == own:
            continue
        if rest[0] not in ROOMS[own].split():
            yield f"{where}; {own} may import: {ROOMS[own] or 'nothing'}"
        elif rest[0] == "backends" and name not in BACKENDS_SEEN:
            yield f"{where}; outside of backends/ only {', '.join(sorted(BACKENDS_SEEN))} are seen"


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_follow_the_architecture(file: str) -> None:
    assert room(file) in ROOMS, f"{file} is a new room: write into ROOMS what it may import"
    assert list(forbidden(file)) == []


def test_the_package_itself_imports_nothing_until_it_is_asked() -> None:
    code = "import sys, chrysalis_mlx; print(*(name for name in sys.modules if name.startswith('chrysalis_mlx')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["chrysalis_mlx"]


@pytest.mark.parametrize("name", chrysalis_mlx.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(chrysalis_mlx, name) is not None
    assert name in dir(chrysalis_mlx)


def test_the_walk_sees_forbidden_arrows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "chrysalis_mlx"
    for folder in ("genome", "training", "backends/mlx"):
        (package / folder).mkdir(parents=True)
    (package / "training" / "bad.py").write_text(
        "import mlx.core\n"
        "def f():\n    from .. import cli\n"
        "from chrysalis_mlx.backends import mlx\n"
        "from chrysalis_mlx.evaluation.compare import compare\n"
        "from ..errors import GenomeError\n"
        "from chrysalis_mlx import __version__\n"
    )
    (package / "cli").mkdir()
    monkeypatch.setattr(f"{__name__}.PACKAGE", package)
    assert [line.split(";")[0] for line in forbidden("training/bad.py")] == [
        "training/bad.py:1 imports mlx.core",
        "training/bad.py:4 imports chrysalis_mlx.backends.mlx",
        "training/bad.py:5 imports chrysalis_mlx.evaluation.compare",
        "training/bad.py:3 imports chrysalis_mlx.cli",
    ]


@pytest.mark.parametrize("file", FILES)
def test_no_file_is_longer_than_350_lines(file: str) -> None:
    assert len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) <= 350
