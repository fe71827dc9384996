"""How many entities one transaction takes, so that nobody waits long for its locks. Pure."""

_FIRST, _FEWEST, _MOST = 100, 10, 5_000
# Far enough below the second that a waiting request of the server should see at most.
_LONG_S, _SHORT_S = 0.5, 0.2


class Pace:
    """The size of the next batch, by how long the ones before took."""

    def __init__(self) -> None:
        self.size = _FIRST

    def took(self, seconds: float) -> None:
        """Halve after a long transaction, double after a short one.

        Args:
            seconds: From the first lock to the commit.
        """
        if seconds > _LONG_S:
            self.size = max(_FEWEST, self.size // 2)
        elif seconds < _SHORT_S:
            self.size = min(_MOST, self.size * 2)
