"""The words of the statistics: what the aggregator has counted."""

from messages.base import Message, message


@message("stats.get_stats")
class GetStats(Message):
    """Answered by ``Stats``."""


@message("stats.usage_line")
class UsageLine(Message):
    """Usage of one provider, or one model, since start.

    Latency is that of successes: to the first content for streams, else to the end.
    """

    name: str
    requests: int
    successes: int
    failures: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    latency_avg_ms: float
    """Exponential moving average, α 0.1."""
    latency_min_ms: float
    latency_max_ms: float
    latency_p95_ms: float
    """A true quantile (DDSketch, 1 % relative error)."""
    cost_nusd: int
    """Billionths of a USD."""
    unpriced: int
    """Successes whose price is not known."""
    estimated: int
    """Calls whose usage is our estimate."""
    last_at: float
    """Unix seconds; 0: never."""
    hedges: int = 0
    """Calls made because another one was overdue. This and ``explores`` are among ``requests``."""
    explores: int = 0
    """Copies made to find out how a provider is doing."""
    lost: int = 0
    """Calls called off because another one of the same request was faster. Among ``cancelled``."""
    lost_cost_nusd: int = 0
    """Of those: what they cost, by our estimate, in billionths of a USD. Among ``cost_nusd``."""


@message("stats.stats")
class Stats(Message):
    """Lines by provider and by model, sorted by name."""

    providers: tuple[UsageLine, ...]
    models: tuple[UsageLine, ...]
