"""What a condition can look at: the request, and, for some conditions, what one provider would ask for it."""

from dataclasses import dataclass

from messages.routing import RequestProfile


@dataclass(slots=True)
class Facts:
    """What is known of a request, whoever serves it."""

    profile: RequestProfile
    model: str
    """The public name after aliases, pins and redirects."""
    wall: float
    """Unix seconds."""
    priority: int
    """A position in ``PRIORITIES``."""


@dataclass(slots=True)
class Terms:
    """What is known of one provider for this request."""

    cost_per_1k_usd: float | None
    """USD per 1000 tokens; None: the price is unknown, and under no ceiling."""
    latency_s: float | None
    """Average, in seconds; None: no samples, which no limit keeps out, or the provider would never be found again."""
    is_asked: bool
    """False: there is no bid yet, so its latency is not known to be known."""


def cost_per_1k(input_usd_per_million: float | None, output_usd_per_million: float | None, endpoint: str) -> float | None:
    """USD per 1000 tokens: the mean of input and output price, of embeddings that of the input. None: a price is unknown."""
    if input_usd_per_million is None:
        return None
    if endpoint == "embeddings":
        return input_usd_per_million / 1000.0
    if output_usd_per_million is None:
        return None
    return (input_usd_per_million + output_usd_per_million) / 2000.0
