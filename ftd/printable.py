"""Text from anywhere, made safe to show: one line that cannot steer a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line; control characters and what turns the direction of writing are escaped.

    Spaces of any kind become plain ones.  The result can be encoded and stored anywhere.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in text).strip()


def is_utf8(text: str) -> bool:
    """Whether `text` can be encoded: other bytes in names and arguments come as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(sign: str) -> str:
    return " " if sign.isspace() else sign.encode("unicode_escape").decode("ascii")
