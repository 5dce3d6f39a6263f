"""chrysalis-mlx: from a set of repositories to a small language model that runs in Ollama or llama.cpp.

Importing this package imports no framework and takes milliseconds; every stage loads what it needs when it runs.
"""

__version__ = "0.1.0"
