"""Values as they stand in the headers of an answer."""

_NUSD = 1_000_000_000
_POINTS = tuple("." + "0" * noughts for noughts in range(9))
"""By the noughts after the point."""

_WORDS_SEEN: dict[str, str] = {}
"""Text as it may stand in a header, by what it was: names of models, the same few again and again."""
WORDS_SEEN_MAX = 1024
WORD_CHARACTERS_MAX = 256


def dollars(nusd: int) -> str:
    """Billionths of a USD in USD, exactly. A format with so many places would cost four times as much."""
    whole, part = nusd // _NUSD, nusd % _NUSD
    if part == 0:
        return str(whole)
    places = 9
    while part % 10 == 0:
        part //= 10
        places -= 1
    digits = str(part)
    point = _POINTS[places - len(digits)]
    return f"0{point}{digits}" if whole == 0 else f"{whole}{point}{digits}"


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
