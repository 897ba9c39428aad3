"""Runs an iterator one step ahead in a separate thread, so that its next item is ready when it is
asked for."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.1  # how often a waiting thread checks whether it should stop
JOIN_SECONDS = 5.0  # how long to wait for the thread to end; it may hang on slow storage


class NoItem:
    """Stands in the queue for the end of the iterator: the error that it raised, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class ReadAhead(Generic[Item]):
    """A thread that keeps one item ready."""

    def __init__(self, items: Iterator[Item]) -> None:
        self.items = items
        self.ready: queue.Queue[Item | NoItem] = queue.Queue(maxsize=1)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.read, name="read ahead", daemon=True)
        self.thread.start()

    def read(self) -> None:
        """Put items into the queue, until told to stop."""
        try:
            for item in self.items:
                if not self.put(item):
                    return
        except BaseException as error:  # raised again in the thread that asked for the item
            self.put(NoItem(error))
        else:
            self.put(NoItem(None))

    def put(self, item: Item | NoItem) -> bool:
        """Put an item into the queue once there is room; False if told to stop."""
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def close(self) -> None:
        """Stop the thread."""
        self.stopped.set()
        self.thread.join(JOIN_SECONDS)


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Yield the same items in the same order, each computed while the one before is used.

    Raises:
        BaseException: whatever `items` raises.
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
