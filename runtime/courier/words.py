"""Values as they stand in the headers of an answer."""

_NUSD = 1_000_000_000


def dollars(nusd: int) -> str:
    """Billionths of a USD in USD, exactly. A format with so many places would cost four times as much."""
    places = str(nusd % _NUSD + _NUSD)[1:].rstrip("0")
    return f"{nusd // _NUSD}.{places}" if places else str(nusd // _NUSD)


def header_safe(text: str) -> str:
    """Text as it may stand in a header: names of models can hold anything."""
    if text.isascii() and text.isprintable() and len(text) <= 256:
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:256]
