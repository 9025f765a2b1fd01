"""Reading something live beside a test."""

import threading
from collections.abc import Iterable
from typing import Any


class Reading(threading.Thread):
    """In a thread of its own."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__(daemon=True)
        self.items = items
        self.found: list[Any] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for item in self.items:
                self.found.append(item)
        except BaseException as error:  # the test judges it
            self.error = error

    def ended(self) -> list[Any]:
        """Everything, once it is over. Raises what ended it."""
        self.join(30)
        assert not self.is_alive(), f"it goes on after {len(self.found)} items"
        if self.error:
            raise self.error
        return self.found
