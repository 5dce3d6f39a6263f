"""The child process of `chrysalis_mlx.llamacpp.child.Child`.

Started as a script, it imports nothing of chrysalis-mlx: it reads one line of JSON settings, loads the GGUF, prints the
address of llama.cpp's server and lives until its standard input closes, which happens when the parent dies too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Ollama's name of a setting -> llama.cpp's.
_SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
}


def parameters(settings: dict[str, Any]) -> Any:
    """The `xllamacpp.CommonParams` of a server with these settings."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.n_ctx = settings["context"]
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"] or os.cpu_count() or 1
    params.hostnames = ["127.0.0.1"]
    params.port = settings["port"]
    params.api_keys = [settings["key"]] if settings["key"] else []
    # By default every page that a browser shows may read the answers.
    params.cors_origins, params.cors_origins_explicit, params.cors_credentials = "localhost", True, False
    if settings["alias"]:
        params.model_alias = {settings["alias"]}
    for name, value in settings["sampling"].items():
        setattr(params.sampling, _SAMPLING[name], value)
    params.cache_ram_mib = 512  # of conversations that others came after; by default 8 GiB, which a laptop has not
    # Of models with a sliding window, llama.cpp takes for another text what it had kept of an earlier one.
    params.n_ctx_checkpoints = 0
    params.verbosity = 2  # warnings and errors; a line per request would fill the log
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    if settings["precise"]:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if settings["lora"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = settings["lora"], 1.0
        params.lora_adapters = [adapter]
    return params


def main() -> None:
    """Serve until standard input closes."""
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(json.loads(sys.stdin.readline())))
    except RuntimeError:
        sys.exit(1)  # the reason is in llama.cpp's log already
    print(server.listening_address, flush=True)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main()
