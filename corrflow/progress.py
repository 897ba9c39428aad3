"""Progress bars, updated often on a terminal and every ten seconds in a job's log."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(things: Any = None, **settings: Any) -> "tqdm[Any]":
    """A `tqdm` bar over `things`, or, without them, one that its `update` moves; `settings` go to
    `tqdm`."""
    return tqdm(things, mininterval=0.1 if sys.stderr.isatty() else 10.0, **settings)
