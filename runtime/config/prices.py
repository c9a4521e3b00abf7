"""Prices and context windows that the file does not give, from the price library. No network: what it ships with counts.

The library is loaded at the first question (it takes a third of a second) and asked only while loading a configuration.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from messages.control import ModelSpec
from runtime.config.kinds import KINDS


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What the library knows of a model: USD per million tokens, tokens. None: unknown."""

    input_price: float | None = None
    output_price: float | None = None
    context_window: int | None = None


_UNKNOWN = KnownModel()
_NO_VENDOR = re.compile(r"[^.]*|[0-9.]+|.*:.*", re.DOTALL)
"""A host of one word, such as ``localhost``, or an IP address."""


def known_model(kind: str, base_url: str, model: str) -> KnownModel:
    """What is known of ``model`` at a provider of ``kind``; of an ``openai_compatible`` one, if its address tells.

    A local server is never taken for the vendor whose models it serves. Where prices depend on the size of the prompt, the
    lowest tier counts.
    """
    price_list = KINDS[kind].price_list if kind in KINDS else None
    if price_list is None and (kind != "openai_compatible" or _is_local(base_url)):
        return _UNKNOWN
    from genai_prices import data_snapshot

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(
            model, None, price_list, None if price_list else f"{base_url}/"
        )
        prices = found.get_prices(datetime.now(UTC))
    except LookupError:
        return _UNKNOWN
    input_price, output_price = _per_million(prices.input_mtok), _per_million(prices.output_mtok)
    if input_price is not None and output_price is None and "embed" in found.id:
        # An embedding puts out no tokens.
        output_price = 0.0
    return KnownModel(input_price, output_price, found.context_window)


def _is_local(base_url: str) -> bool:
    """Whether a server can be no vendor's, so that the library need not be loaded for it."""
    try:
        return _NO_VENDOR.fullmatch(urlsplit(base_url).hostname or "") is not None
    except ValueError:
        return False


def priced_model(kind: str, base_url: str, name: str) -> ModelSpec:
    """A model that a provider lists of its own, with what is known of it."""
    known = known_model(kind, base_url, name)
    return ModelSpec(name, name, known.input_price, known.output_price, known.context_window)


def _per_million(price: object) -> float | None:
    base = getattr(price, "base", price)
    return float(base) if isinstance(base, Decimal) else None
