"""Large bodies are read by their outline: JSON in which long plain strings are cut short. Sans-I/O.

Most of a large body is a few strings, a picture in base64 or a document, of which only the length matters here. What is left
out is not looked at: a control character in there, which JSON forbids, is the upstream's to refuse. Always: everything else is
read as it would be from the whole body.
"""

from dataclasses import dataclass

LARGE_BYTES = 64 * 1024
"""Smaller bodies are read quickly enough."""
KEPT_CHARACTERS = 16_384
"""Of each string that is cut: as much as anybody looks at (``affinity``)."""
QUOTES_MAX = 256
"""So many are looked at. A body with more of them is text and structure through and through, and is parsed as it is."""
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_CONTINUES = 0b1000_0000
"""A byte that does not begin a character has these of its two highest bits."""


@dataclass(slots=True)
class Outline:
    """One body's outline."""

    text: bytes
    """JSON if and only if the body is."""
    _cuts: list[tuple[int, int]]
    """Where in ``text`` something was left out, and bytes by which the body is longer up to there. Ascending."""
    _characters: dict[str, int]
    """The true length of each string that was cut, by what the outline has of it."""

    def characters(self, text: str) -> int:
        """The length in the body of a string that the outline has as ``text``."""
        return len(text) if len(text) <= KEPT_CHARACTERS else self._characters.get(text, len(text))

    def is_cut(self, text: str) -> bool:
        """Whether the body has more of this string."""
        return len(text) > KEPT_CHARACTERS and text in self._characters

    def place(self, at: int) -> int:
        """The place in the body of one in ``text`` that was not left out."""
        missing = 0
        for cut_at, longer in self._cuts:
            if cut_at > at:
                break
            missing = longer
        return at + missing


def outlined(body: bytes) -> Outline | None:
    """The outline of ``body``; None where there is nothing to leave out, or what there is cannot be read."""
    is_ascii = body.isascii()
    kept_bytes = KEPT_CHARACTERS if is_ascii else 4 * KEPT_CHARACTERS
    runs = _plain_runs(body, 2 * kept_bytes)
    if not runs:
        return None
    view = memoryview(body)
    pieces: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    characters: dict[str, int] = {}
    done = size = 0
    for number, (start, end) in enumerate(runs):
        kept_end = start + kept_bytes
        while body[kept_end] & 0b1100_0000 == _CONTINUES:
            kept_end += 1
        # Tells strings that begin alike from each other.
        mark = f"~{number}"
        try:
            known = str(view[start:kept_end], "utf-8") + mark
            characters[known] = end - start if is_ascii else len(str(view[start:end], "utf-8"))
        except UnicodeDecodeError:
            return None
        pieces.append(body[done:kept_end])
        pieces.append(mark.encode())
        size += kept_end - done + len(mark)
        cuts.append((size, end - size))
        done = end
    pieces.append(body[done:])
    return Outline(b"".join(pieces), cuts, characters)


def _plain_runs(body: bytes, least_bytes: int) -> list[tuple[int, int]]:
    """Where strings of at least so many bytes without an escape begin and end."""
    runs: list[tuple[int, int]] = []
    at = start = 0
    is_inside = False
    for _ in range(QUOTES_MAX):
        at = body.find(_QUOTE, at)
        if at < 0:
            break
        if not is_inside:
            is_inside, start = True, at + 1
        elif not _is_escaped(body, at):
            is_inside = False
            if at - start >= least_bytes and body.find(_BACKSLASH, start, at) < 0:
                runs.append((start, at))
        at += 1
    return runs


def _is_escaped(body: bytes, at: int) -> bool:
    first = at
    while body[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1
