"""The headers of an answer as they stand on the wire, and values in them."""

from runtime.ports import Headers

_NUSD = 1_000_000_000
_POINTS = tuple("." + "0" * noughts for noughts in range(9))
_BELOW_ONE = tuple("0" + point for point in _POINTS)
"""By the noughts after the point."""

_WORDS_SEEN: dict[str, str] = {}
"""Text as it may stand in a header, by what it was: names of models, the same few again and again."""
WORDS_SEEN_MAX = 1024
WORD_CHARACTERS_MAX = 256

_UNFIT = str.maketrans({"\r": " ", "\n": " ", "\0": " "})
_TITLES: dict[str, str] = {}
"""By the header's name: few, and the same again and again."""
_TYPE_LINES: dict[str, str] = {}
"""By the type, of which there are few as well."""
TITLES_MAX = 1024
TITLE_CHARACTERS_MAX = 64


def header_lines(headers: Headers) -> str:
    """The lines of headers, each with the end of the line before it. Nothing in a header can begin another."""
    pairs: list[tuple[str, str]] = headers if isinstance(headers, list) else list(headers)
    parts: list[str] = []
    for name, value in pairs:
        parts.append(_TITLES.get(name) or _title(name))
        parts.append(value)
    values = "".join([value for _, value in pairs])
    if "\n" in values or "\r" in values or "\0" in values:
        parts[1::2] = [value.translate(_UNFIT) for _, value in pairs]
    return "".join(parts)


def type_line(value: str) -> str:
    """The same, of a header that tells the content's type."""
    found = _TYPE_LINES.get(value)
    if found is None:
        found = header_lines([("content-type", value)])
        if len(_TYPE_LINES) < TITLES_MAX and len(value) <= WORD_CHARACTERS_MAX:
            _TYPE_LINES[value] = found
    return found


def _title(name: str) -> str:
    """The end of the line before, and the beginning of a header's."""
    title = f"\r\n{name.translate(_UNFIT)}: "
    if len(_TITLES) < TITLES_MAX and len(name) <= TITLE_CHARACTERS_MAX:
        _TITLES[name] = title
    return title


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
    noughts = places - len(digits)
    return _BELOW_ONE[noughts] + digits if whole == 0 else str(whole) + _POINTS[noughts] + digits


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
