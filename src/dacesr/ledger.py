"""How often each picture of a run was begun; imports nothing, so that the process which keeps it is small."""


class Ledger:
    """Counts how often pictures were begun; lives as long as a run."""

    def __init__(self) -> None:
        """Nothing was begun."""
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """How often a picture was begun before."""
        before = self._begun.get(number, 0)
        self._begun[number] = before + 1
        return before
