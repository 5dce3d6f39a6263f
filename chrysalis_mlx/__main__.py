"""`python -m chrysalis_mlx` is the command `chrysalis-mlx`."""

import sys

from chrysalis_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main())
