"""Runs an iterator one step ahead in a thread of its own, so that what it yields is ready when it
is asked for."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.1  # between two looks of a thread that is ahead whether it is to end
JOIN_SECONDS = 5.0  # that the thread may take to end; one that waits for storage is left alone


class NoItem:
    """In place of an item: what the iterator raised, or None where it ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class ReadAhead(Generic[Item]):
    """The thread, and the one item that it has ready."""

    def __init__(self, items: Iterator[Item]) -> None:
        self.items = items
        self.ready: queue.Queue[Item | NoItem] = queue.Queue(maxsize=1)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.read, name="read ahead", daemon=True)
        self.thread.start()

    def read(self) -> None:
        """Take items and put them where they are awaited, until told to stop."""
        try:
            for item in self.items:
                if not self.put(item):
                    return
        except BaseException as error:  # raised again in the thread that asked for the item
            self.put(NoItem(error))
        else:
            self.put(NoItem(None))

    def put(self, item: Item | NoItem) -> bool:
        """Hand an item over once there is room; False if nobody wants it any more."""
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def close(self) -> None:
        """End the thread."""
        self.stopped.set()
        self.thread.join(JOIN_SECONDS)


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items in the same order, each taken from `items` while the one before is used.

    Raises:
        BaseException: what `items` raised, in its place.
    """
    reader = ReadAhead(items)
    try:
        while True:
            item = reader.ready.get()
            if not isinstance(item, NoItem):
                yield item
            elif item.error is None:
                return
            else:
                raise item.error
    finally:
        reader.close()
