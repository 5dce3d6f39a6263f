"""llama.cpp's server in a child process of its own (`process`).

It writes to the terminal past Python, keeps its memory, and ends the whole process when one of its assertions fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from chrysalis_mlx.errors import BackendError, ExportError

_LOG_LINES = 12
_SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """What a server is started with.

    Attributes:
        file: the GGUF.
        context: tokens of context, prompt and answer together; 0 takes what the model was trained with.
        threads: processor threads; None takes all cores.
        lora: an adapter GGUF to apply, at scale 1; empty: none.
        precise: keep keys and values in float32 and leave flash attention off, to compare with another implementation.
        key: what a request has to bring; empty: nothing.
        port: of 127.0.0.1; 0 takes a free one.
        alias: the model's name in answers; empty: the file's path.
        sampling: temperature, top_k, top_p, min_p, repeat_penalty of requests that do not name them.
    """

    file: str
    context: int = 2048
    threads: int | None = None
    lora: str = ""
    precise: bool = False
    key: str = ""
    port: int = 0
    alias: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)


class Child:
    """A running llama.cpp; a context manager.

    Attributes:
        address: `http://127.0.0.1:PORT`, once it runs.
        process: None before it runs and after it was closed.

    Raises:
        ExportError: the file cannot be loaded; with llama.cpp's own last lines.
        BackendError: the port cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = ""
        self.process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Child:
        for path in filter(None, (self.settings.file, self.settings.lora)):
            if not Path(path).is_file():
                raise ExportError("there is no such GGUF file", where=path)
        self._log = tempfile.TemporaryFile()
        # A group of its own: Ctrl-C at the terminal stops an answer, and not the model.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(),
            process_group=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asdict(self.settings)) + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith("http://"):
                    self.address = line.strip()
                    return self
            raise BrokenPipeError
        except OSError:
            error = self._not_started()
            self.close()
            raise error from None
        except BaseException:
            self.process.kill()  # in the middle of loading it hears nothing
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop llama.cpp and wait for it; a second call does nothing."""
        if self.process is not None:
            process, self.process = self.process, None
            try:
                process.communicate(timeout=_SHUTDOWN_SECONDS)  # closes its standard input
            except (subprocess.TimeoutExpired, OSError):
                process.kill()
                process.wait()
            except BaseException:  # a second Ctrl-C
                process.kill()
                process.wait()
                raise
            finally:
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None and not pipe.closed:
                        pipe.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def wait(self) -> None:
        """Return when llama.cpp has ended.

        Raises:
            ExportError: always: it was not asked to.
        """
        assert self.process is not None
        self.process.wait()
        raise ExportError(f"llama.cpp ended:\n{self.tail()}", where=self.settings.file)

    def log(self) -> str:
        """llama.cpp's warnings and errors so far."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", errors="replace")

    def tail(self) -> str:
        """The last lines of `log`."""
        return "\n".join(self.log().splitlines()[-_LOG_LINES:]) or "llama.cpp said nothing"

    def _not_started(self) -> ExportError | BackendError:
        if "couldn't bind" in self.log():
            return BackendError(
                f"port {self.settings.port} of 127.0.0.1 cannot be had: another program has it, or it is reserved",
                fix="take another one with --port N; --port 0 takes any that is free",
            )
        return ExportError(f"llama.cpp cannot load the file:\n{self.tail()}", where=self.settings.file)


def _environment() -> dict[str, str]:
    """The child's environment.

    llama.cpp's threads meet hundreds of times a token, and on Linux they wait for each other in a loop that libgomp
    lets run for milliseconds. Where another program wants a core too, that made a tiny model a hundred times slower.
    """
    own = dict(os.environ)
    return own if "OMP_WAIT_POLICY" in own else {"GOMP_SPINCOUNT": "1000", **own}
