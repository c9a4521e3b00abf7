"""What somebody may be given: a provider, a tenant or a pool."""

from messages.base import Message, message


@message("control.limits_spec")
class LimitsSpec(Message):
    """What a provider, a tenant or a pool may be given. None: no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_concurrency: int | None = None
    burst: float | None = None
    """Requests the request bucket holds; the token bucket in proportion. None: the limit of a whole minute."""

    @property
    def is_limited(self) -> bool:
        """Whether anything is limited at all."""
        return not (self.requests_per_minute is None and self.tokens_per_minute is None and self.max_concurrency is None)


NO_LIMITS = LimitsSpec()
