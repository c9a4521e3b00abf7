"""The three providers of ``make demo``, and a configuration of Pointsman that puts them behind it.

``swift`` is fast and dear, ``steady`` in the middle of both, ``thrifty`` slow, cheap and rate-limited, and some of its
answers are 503.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from runtime.simulation.behaviour import Behaviour, Seed
from runtime.simulation.server import SimulatedProvider

MODEL_PRICE_FACTORS: Mapping[str, float] = {"demo-small": 1.0, "demo-large": 5.0}
"""What a model costs, in prices of its provider's behaviour."""
CONTEXT_WINDOW_TOKENS = 128_000
_MODELS = tuple(MODEL_PRICE_FACTORS)


def demo_behaviours() -> tuple[Behaviour, ...]:
    """The three providers."""
    return (
        Behaviour(
            name="swift",
            ttfb_ms=120,
            sigma=0.25,
            tokens_per_second=180,
            capacity=32,
            input_price=2.5,
            output_price=10.0,
            models=_MODELS,
            chunk_tokens=4,
            api_key="key-of-swift",
        ),
        Behaviour(
            name="steady",
            ttfb_ms=300,
            sigma=0.3,
            tokens_per_second=90,
            capacity=24,
            input_price=1.0,
            output_price=4.0,
            models=_MODELS,
            chunk_tokens=4,
            api_key="key-of-steady",
        ),
        Behaviour(
            name="thrifty",
            ttfb_ms=600,
            sigma=0.45,
            tokens_per_second=45,
            capacity=8,
            input_price=0.15,
            output_price=0.6,
            requests_per_minute=120,
            tokens_per_minute=60_000,
            burst_s=10.0,
            models=_MODELS,
            chunk_tokens=4,
            error_share=0.05,
            api_key="key-of-thrifty",
        ),
    )


def demo_config(providers: Sequence[SimulatedProvider]) -> dict[str, Any]:
    """A configuration for ``providers``, which have been started. Short waits, so that one sees a broken provider come back."""
    return {"providers": [_entry(provider) for provider in providers]}


def _entry(provider: SimulatedProvider) -> dict[str, Any]:
    behaviour = provider.behaviour
    models = [
        {
            "name": name,
            "input_price": round(behaviour.input_price * MODEL_PRICE_FACTORS.get(name, 1.0), 6),
            "output_price": round(behaviour.output_price * MODEL_PRICE_FACTORS.get(name, 1.0), 6),
            "context_window": CONTEXT_WINDOW_TOKENS,
        }
        for name in behaviour.models
    ]
    limits: dict[str, Any] = {"max_concurrency": behaviour.capacity}
    if behaviour.requests_per_minute is not None:
        limits["requests_per_minute"] = behaviour.requests_per_minute
    if behaviour.tokens_per_minute is not None:
        limits["tokens_per_minute"] = behaviour.tokens_per_minute
    entry: dict[str, Any] = {
        "id": behaviour.name,
        "kind": "openai_compatible",
        "base_url": provider.base_url,
        "models": models,
        "limits": limits,
        "circuit": {"open_for": "5s"},
        "timeouts": {"first_byte": "5s", "idle": "5s", "total": "60s"},
        "probe": {"kind": "models", "interval": "5s"},
    }
    if behaviour.api_key:
        entry["api_key"] = behaviour.api_key
    return entry


@asynccontextmanager
async def demo_world(seed: Seed) -> AsyncIterator[list[SimulatedProvider]]:
    """The three providers, listening on free ports until the block is left."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SimulatedProvider(behaviour, seed)) for behaviour in demo_behaviours()]
