"""Values as they stand in the headers of an answer."""

_NUSD = 1_000_000_000


_WORDS_SEEN: dict[str, str] = {}
"""Text as it may stand in a header, by what it was: names of models, the same few again and again."""
WORDS_SEEN_MAX = 1024
WORD_CHARACTERS_MAX = 256


def dollars(nusd: int) -> str:
    """Billionths of a USD in USD, exactly. A format with so many places would cost four times as much."""
    whole, part = nusd // _NUSD, nusd % _NUSD
    if part == 0:
        return str(whole)
    # With a digit before them, noughts at their beginning stay.
    places = str(part + _NUSD)[1:].rstrip("0")
    return "0." + places if whole == 0 else f"{whole}.{places}"


def header_safe(text: str) -> str:
    """Text as it may stand in a header: names of models can hold anything."""
    seen = _WORDS_SEEN.get(text)
    if seen is not None:
        return seen
    is_safe = text.isascii() and text.isprintable() and len(text) <= WORD_CHARACTERS_MAX
    safe = text if is_safe else "".join(char if " " <= char <= "~" else "?" for char in text)[:WORD_CHARACTERS_MAX]
    if len(_WORDS_SEEN) < WORDS_SEEN_MAX and len(text) <= WORD_CHARACTERS_MAX:
        _WORDS_SEEN[text] = safe
    return safe
