"""The processes that train together, and the decisions that all of them make alike."""

from __future__ import annotations

from chrysalis_mlx.backends.base import Engine


class Ranks:
    """This process among the others. When it is alone, nothing is sent and every answer is its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        world = engine.world()
        self.rank, self.size = world.rank, world.size

    @property
    def leads(self) -> bool:
        """Whether this process writes and decides for the others."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, up for everyone when it is up for anyone."""
        return [value > 0 for value in self._total(*map(float, flags))]

    def of_the_lead(self, value: int) -> int:
        """The leading process's value, for everyone."""
        return round(self._total(float(value) if self.leads else 0.0)[0])

    def _total(self, *values: float) -> list[float]:
        return self._engine.total(values) if self.size > 1 else list(values)
