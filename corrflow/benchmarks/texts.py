"""Reads text files of data sets (lists and labels), whatever system wrote them. `records.py` has
the files that an evaluation writes."""

import codecs
from pathlib import Path

from corrflow.errors import InputError

EXPECTED = "expected text in UTF-8, or in UTF-16 with a byte order mark"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """Read a text file of a data set: UTF-8, or UTF-16 where it begins with a byte order mark.

    Raises:
        InputError: the file does not exist, or has another encoding.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    try:
        text = data.decode("utf-16" if data.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}: {EXPECTED}") from None
    if "\0" in text:  # UTF-16 without a byte order mark, UTF-32, or not text
        raise InputError(f"{path}: holds zero bytes, which UTF-8 text does not: {EXPECTED}")
    return text
