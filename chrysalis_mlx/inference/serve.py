"""llama.cpp's server for other programs of this machine, which speak to it as to OpenAI's."""

from __future__ import annotations

from chrysalis_mlx.inference.files import Exported, Manner
from chrysalis_mlx.llamacpp.child import Child, Settings


def serving(exported: Exported, manner: Manner, *, port: int, key: str) -> Child:
    """A server on 127.0.0.1, to be entered; its model is called as the run is.

    Requests are answered one after another. Only pages that come from this machine themselves get leave to read answers
    in a browser (CORS). Without a key, a page of another site can still send requests whose answers it does not see:
    one of them, with a grammar too deep for llama.cpp, ends it. And one whose name was made to point to this machine
    (DNS rebinding) reads the answers, as llama.cpp does not look at the name.

    Args:
        port: 0 takes a free one.
        key: what requests must bring; empty: nothing, for whoever wants that.

    Raises:
        ExportError: when entered: llama.cpp cannot load the file.
        BackendError: when entered: the port cannot be had.
    """
    return Child(
        Settings(
            str(exported.file),
            context=manner.context,
            key=key,
            port=port,
            alias=exported.name,
            sampling=dict(manner.sampling),
        )
    )
