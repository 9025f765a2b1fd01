"""Lines out of a body that comes in parts."""

from realtime_runs.exceptions import TooLarge


class Lines:
    """Holds no more than the line that is not complete yet."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def take(self, part: bytes) -> list[bytes]:
        """The lines that are complete with this part; blank ones are none."""
        first, *others = part.split(b"\n")
        self._begun.append(first)
        self._size += len(first)
        lines = []
        for line in others:
            lines.append(b"".join(self._begun))
            self._begun, self._size = [line], len(line)
        return [line for line in lines if line.strip()]

    def rest(self) -> list[bytes]:
        """The last line, which may have no end."""
        return self.take(b"\n")

    def check(self, limit: int, setting: str) -> None:
        """Raises TooLarge when the line that is not complete has more bytes already."""
        if self._size > limit:
            raise TooLarge("The line", self._size, limit, setting)
