"""What probes may cost: which model a paid one calls, and what each provider's have cost today. Pure.

Always: a probe is paid only where the configuration says ``kind: chat``, the price is known, and today's sum with the
estimate of this one stays within ``spend_usd_max``. The estimate is booked before the probe and settled to what it used, so
probes that are out count, and those whose end is lost count in full. A day is one of UTC, as on the bills of providers.
"""

from dataclasses import dataclass

from messages.control import ModelSpec, ProviderSpec
from messages.health import ProbeDone

INPUT_TOKENS = 64
"""A generous estimate of the few words that are sent, with what a chat template adds."""
OUTPUT_TOKENS = 16
"""The most a probe asks for: the least that all providers take."""
DAY_S = 86_400.0
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Booking:
    """What is booked for one paid probe."""

    provider: str
    model: ModelSpec
    day: int
    usd: float
    """The estimate."""


class ProbeBill:
    """Today's cost in USD by provider. One that was removed is still on it, for it may come back the same day."""

    def __init__(self) -> None:
        self._day = 0
        self._spent: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<probe bill of day {self._day}: {sum(self._spent.values()):.6f} USD>"

    def book(self, spec: ProviderSpec, wall: float) -> Booking | None:
        """Book a paid probe at ``wall`` (Unix s); None: it may not be paid now."""
        model = paid_model(spec) if spec.probe.kind == "chat" else None
        if model is None:
            return None
        day = int(wall // DAY_S)
        if day > self._day:
            # Never back: a clock that was set back pays nothing twice.
            self._day, self._spent = day, {}
        usd = cost_usd(model, INPUT_TOKENS, OUTPUT_TOKENS)
        spent = self._spent.get(spec.id, 0.0)
        if spent + usd > spec.probe.spend_usd_max:
            return None
        self._spent[spec.id] = spent + usd
        return Booking(spec.id, model, self._day, usd)

    def settle(self, booking: Booking, done: ProbeDone) -> float:
        """Correct a booking by how its probe ended; returns its cost in USD."""
        if not done.is_paid:
            used = 0.0
        elif done.usage is None:
            used = booking.usd
        else:
            used = cost_usd(booking.model, done.usage.input_tokens, done.usage.output_tokens)
        if booking.day == self._day:
            self._spent[booking.provider] = max(0.0, self._spent[booking.provider] + used - booking.usd)
        return used


def paid_model(spec: ProviderSpec) -> ModelSpec | None:
    """The model a paid probe calls: the one that is named, else the cheapest. None: no price is known."""
    wanted = spec.probe.model
    known = [
        model
        for model in spec.models
        if model.input_price is not None and model.output_price is not None and wanted in (None, model.name)
    ]
    return min(known, key=lambda model: (cost_usd(model, INPUT_TOKENS, OUTPUT_TOKENS), model.name), default=None)


def cost_usd(model: ModelSpec, input_tokens: int, output_tokens: int) -> float:
    """The price of a call to a model; 0 where none is known."""
    return (input_tokens * (model.input_price or 0.0) + output_tokens * (model.output_price or 0.0)) / MILLION
