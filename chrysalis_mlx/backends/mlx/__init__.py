"""MLX. Importing anything from here first puts a fast BLAS in its way, where the wheel has a slow one."""

from chrysalis_mlx.backends.mlx import blas

blas.preload()
