"""Progress bars: often on a terminal, a line now and then in a job's log."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(things: Any = None, **settings: Any) -> "tqdm[Any]":
    """A bar over `things`, or over what its `update` is told; `settings` as `tqdm` takes them."""
    return tqdm(things, mininterval=0.1 if sys.stderr.isatty() else 10.0, **settings)
