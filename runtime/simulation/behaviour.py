"""How a simulated provider behaves: its speed, prices and limits, and the luck of each request there.

Always: no clock and no global chance. Every draw is a pure function of the seed and of what it is about (provider,
request, attempt), never of the order of calls, so that two runs that ask the same get the same.
"""

import hashlib
import math
from dataclasses import dataclass, field
from statistics import NormalDist

Seed = int | str

ANSWER_TOKENS_MEAN = 40
ANSWER_TOKENS_MAX = 16_384
_ANSWER_SIGMA = 0.5
_NORMAL = NormalDist()


def unit(*about: object) -> float:
    """A uniform draw from the open interval (0, 1) that depends on nothing but ``about``."""
    digest = hashlib.blake2b("\x1f".join(map(str, about)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2.0**64


def request_key(body: bytes) -> str:
    """The name of a request in all draws: a digest of its body."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a provider is like. Raises ``ValueError`` for what no provider can be."""

    name: str
    ttfb_ms: float = 200.0
    """Median time to the first byte."""
    sigma: float = 0.3
    """Of the lognormal distribution of that time; 0: always the median."""
    tokens_per_second: float = 100.0
    prefill_tokens_per_second: float | None = None
    """So many tokens of a prompt are read in a second before the first byte; None: at once, whatever its length."""
    capacity: int = 64
    """Calls served at once; the rest wait in the order they came."""
    input_price: float = 0.5
    """USD per million tokens."""
    output_price: float = 1.5
    """USD per million tokens."""
    model_prices: tuple[tuple[str, float, float], ...] = ()
    """(model, input, output) where a model has prices of its own, USD per million tokens."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst_s: float = 3.0
    """The buckets of both limits hold what flows in during so many seconds."""
    models: tuple[str, ...] = ("simulated",)
    chunk_tokens: int = 8
    """Tokens in one chunk of a stream; the first chunk has one."""
    error_share: float = 0.0
    """Share of calls answered 503 as a standing habit; no fault need be switched on."""
    api_key: str = field(default="", repr=False)
    """The only key that is let in; empty: any, or none."""

    def __post_init__(self) -> None:
        """Refuse what no provider can be."""
        for name in ("tokens_per_second", "capacity", "burst_s", "chunk_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{self.name}: {name} must be above 0")
        for name in ("ttfb_ms", "sigma", "input_price", "output_price"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{self.name}: {name} must not be negative")
        for name in ("requests_per_minute", "tokens_per_minute", "prefill_tokens_per_second"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ValueError(f"{self.name}: {name} must be above 0, or None")
        if not 0 <= self.error_share <= 1:
            raise ValueError(f"{self.name}: error_share must be between 0 and 1")
        if not self.name or not self.models:
            raise ValueError("a provider needs a name and a model")

    def prefill_s(self, prompt_tokens: int) -> float:
        """Seconds to read a prompt, on top of the time to the first byte."""
        return 0.0 if self.prefill_tokens_per_second is None else prompt_tokens / self.prefill_tokens_per_second

    def generation_s(self, tokens: int) -> float:
        """Seconds from the first token to the one that makes it ``tokens``."""
        return max(0, tokens - 1) / self.tokens_per_second

    def cost_usd(self, input_tokens: int, output_tokens: int, model: str = "") -> float:
        """List price of a call of ``model`` in USD."""
        input_price, output_price = self.input_price, self.output_price
        for name, own_input_price, own_output_price in self.model_prices:
            if name == model:
                input_price, output_price = own_input_price, own_output_price
        return (input_tokens * input_price + output_tokens * output_price) / 1e6


@dataclass(frozen=True, slots=True)
class Luck:
    """The draws of one attempt of one request at one provider."""

    behaviour: Behaviour
    seed: Seed
    key: str
    attempt: int
    """How often this provider has had this request before."""

    def draw(self, what: str) -> float:
        """A uniform draw from (0, 1) for one purpose."""
        return unit(self.seed, self.behaviour.name, self.key, self.attempt, what)

    def is_struck(self, fault: str, share: float) -> bool:
        """Whether this attempt is among the ``share`` of calls that a fault hits."""
        return self.draw(fault) < share

    def first_byte_s(self) -> float:
        """Seconds from the beginning of service to the first byte."""
        deviation = _NORMAL.inv_cdf(self.draw("first byte"))
        return self.behaviour.ttfb_ms / 1000.0 * math.exp(self.behaviour.sigma * deviation)


def answer_tokens(seed: Seed, key: str) -> int:
    """Length of the answer to a request that sets none: lognormal, in mean about 40, the same at every provider."""
    draw = _NORMAL.inv_cdf(unit(seed, key, "length"))
    median = ANSWER_TOKENS_MEAN / math.exp(_ANSWER_SIGMA**2 / 2)
    return min(400, max(4, round(median * math.exp(_ANSWER_SIGMA * draw))))
