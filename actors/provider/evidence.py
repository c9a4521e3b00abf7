"""What is known of one model at one provider: how fast, how loaded, how likely to fail.

Times are estimated as logarithms, so that a factor up and a factor down weigh the same; everything is O(1), bounded and
decaying. The terms of a bid are finished when something is learned, so that a bid costs a few multiplications.

The estimates, with x a first-content time (streams) or a total time (other answers), O output tokens, m calls out::

    F = e^(a + min(0.5, sd^2 / 2))           first content of an idle provider; a, sd learned from x
    S = e^b                                  seconds per output token
    T = F + S O                              the whole answer
    phi = age / predicted, of the oldest call sent after the last good one, once it is overdue; else 1
    Q = soft max(0, m - c) / c T             queueing beyond the knee c; soft = 1 once queueing was seen, else 0.3
    expected = T phi + 3 Q                   waiting counts three times: whoever waits makes others wait
    p, L                                     chance to fail before content, and the seconds that costs
    cut                                      chance to break after content; p and cut fade with e^(-t / 20 s)

A sample r = ln(x / predicted when idle) is put down to load where the load was high and the time long (it moves the
knee), else to the provider (it moves a). The gain is max(0.12, 1/n), and 0.5 when |r| > 3 sd: surprised, learn quickly.
A call that was called off without content is a censored sample ("at least so long"), beyond ``patience_s`` a failure.

Sources: ROUTING.md (the policy and the simulation that chose these constants). Quick up, slow down: Finagle's Peak EWMA.
Queue size in the cost: C3 (NSDI 2015), Prequal (NSDI 2024). Knee from latency: Little's law, Netflix concurrency-limits.
phi: the accrual failure detector of Hayashibara et al., 2004. Deviation: Jacobson 1988.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import exp, isfinite, log

from actors.provider.output_length import OutputLength
from actors.provider.quantiles import Quantiles

MODELS_MAX = 64
FIRST_S = 1.0
TOKEN_S = 0.02
"""What is expected before anything was seen: seconds to first content, seconds per token."""
KNEE = 8.0
SOFT = 0.3
QUEUE_WEIGHT = 3.0
RISK_TAU_S = 20.0
BURST_TAU_S = 0.5
SAMPLES_TAU_S = 1800.0
OVERDUE_Z = 2.5
"""Deviations after which a call is overdue: about p99.4."""
PATIENCE_S = 2.0
UNKNOWN_PATIENCE_S = 10.0
GAIN = 0.12
GAIN_SURPRISED = 0.5
GAIN_REFERENCE = 0.01
UNKNOWN_AGAIN_P = 0.05
_TINY_S, _HUGE_S = 1e-4, 1e4
_DEVIATION = 0.35
_DEVIATION_MIN = 0.1


@dataclass(slots=True, eq=False)
class Sending:
    """A call that is out, as evidence sees it."""

    sent_at: float
    stream: bool
    max_tokens: int | None
    predicted_s: float
    overdue_s: float
    """Age in s from which it is evidence by itself."""
    load: int
    """Calls out for this model when it was sent, itself included."""
    is_waiting: bool = True
    """No content yet."""


class ModelEvidence:
    """The estimates for one model. Fields that a bid reads are public; times in seconds."""

    __slots__ = (
        "_a", "_at", "_b", "_deviation", "_deviation_whole", "_fresh", "_good_sent_at", "_idle_s", "_is_limited", "_rate_n",
        "_recent", "_reference", "cut_p", "failure_loss_s", "failure_p", "failures", "first_s", "in_flight", "knee",
        "oldest", "output", "samples", "streams", "successes", "token_s", "wholes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._a = log(FIRST_S)
        self._b = log(TOKEN_S)
        self._idle_s = FIRST_S
        self._deviation = self._deviation_whole = _DEVIATION
        self._reference = self._a
        self._rate_n = 0
        self._recent = 0.0
        self._at = 0.0
        self._is_limited = False
        self._good_sent_at = float("-inf")
        self._fresh: OrderedDict[int, Sending] = OrderedDict()
        self.oldest: Sending | None = None
        """The oldest call without content that was sent after the last good one."""
        self.samples = 0.0
        self.successes = 0.0
        self.failures = 0.0
        self.in_flight = 0
        self.knee = KNEE
        self.first_s = FIRST_S
        self.token_s = TOKEN_S
        self.failure_p = 0.0
        self.failure_loss_s = 0.0
        self.cut_p = 0.0
        self.output = OutputLength()
        self.streams = Quantiles()
        self.wholes = Quantiles()

    def __repr__(self) -> str:
        return (
            f"first {self.first_s:.3f} s, {self.token_s * 1000:.2f} ms/token, knee {self.knee:.1f}, "
            f"fails {self.failure_p:.2f}, cut {self.cut_p:.2f}, {self.samples:.1f} samples"
        )

    @property
    def slowness(self) -> float:
        """Time to first content now, as a multiple of what it used to be."""
        return exp(self._a - self._reference)

    def known(self, failure_p: float) -> int:
        """Calls behind the estimates, 0 only if nothing is known: no answer ever came, and no failure lately.

        ``failure_p`` is the chance to fail as it stands now. Who has only failed is no unknown to be curious about (else
        it would draw every call to it); once its failures have faded it is one again.
        """
        if self.samples:
            return max(1, round(self.samples))
        return 1 if failure_p > UNKNOWN_AGAIN_P else 0

    def fading(self, now: float) -> float:
        """The share of ``failure_p`` and ``cut_p`` that is left at ``now`` (s)."""
        return exp((self._at - now) / RISK_TAU_S) if now > self._at else 1.0

    def expected_s(self, output_tokens: float, now: float) -> float:
        """Expected time (s) of one more request, queueing weighed in. Changes nothing."""
        total = self.first_s + self.token_s * output_tokens
        expected = total
        oldest = self.oldest
        if oldest is not None and (age := now - oldest.sent_at) > oldest.overdue_s:
            expected = total * max(1.0, age / oldest.predicted_s)
        load = self.in_flight + 1
        if load > self.knee:
            soft = 1.0 if self._is_limited else SOFT
            expected += QUEUE_WEIGHT * soft * (load - self.knee) / self.knee * total
        return expected

    def patience_s(self, stream: bool) -> float:
        """Age (s) at which a call without content that is called off counts as failed: max(2 s, p95 x 2)."""
        seen = self.streams if stream else self.wholes
        return max(PATIENCE_S, 2.0 * seen.p95_s) if seen.count else UNKNOWN_PATIENCE_S

    def sent(self, stream: bool, max_tokens: int | None, now: float) -> Sending:
        """A call goes out at ``now`` (s)."""
        self.in_flight += 1
        tokens = self.output.expected(max_tokens)
        idle = self._idle_s if stream else self._idle_s + self.token_s * tokens
        predicted = idle
        if self.in_flight > self.knee:
            soft = 1.0 if self._is_limited else SOFT
            predicted += soft * (self.in_flight - self.knee) / self.knee * (self.first_s + self.token_s * tokens)
        deviation = self._deviation if stream else max(self._deviation_whole, self.output.deviation)
        overdue = max(predicted + 0.03, predicted * exp(OVERDUE_Z * min(deviation, 1.0)))
        sending = Sending(now, stream, max_tokens, predicted, overdue, self.in_flight)
        self._fresh[id(sending)] = sending
        if self.oldest is None:
            self.oldest = sending
        return sending

    def restored(self, stream: bool, sent_at: float) -> Sending:
        """A call that was out before a restart: it is counted, and its waiting says nothing."""
        self.in_flight += 1
        return Sending(sent_at, stream, None, FIRST_S, FIRST_S, self.in_flight, is_waiting=False)

    def ended(self, sending: Sending) -> None:
        """A call is over, however it ended. Before anything is learned from it."""
        self.in_flight -= 1
        self._stop_waiting(sending)

    def content(self, sending: Sending, first_s: float | None, now: float, alpha: float) -> None:
        """The first content of a call is here; ``first_s`` (s) where it was a stream's."""
        self._good(sending, now)
        if sending.stream and (first_s := _sane(first_s)) is not None:
            self.streams.record(first_s, now, alpha)
            self._learn(sending, first_s, None, now)

    def finished(
        self, sending: Sending, duration_s: float, first_s: float | None, output_tokens: int | None, now: float, alpha: float
    ) -> None:
        """A call ended well. ``output_tokens`` None: not known. Its content, if a stream's, was told before."""
        whole_s = _sane(duration_s)
        self.cut_p = self._risk(self.cut_p, 0.0, 12.0, now)
        self.successes += 1.0
        if output_tokens is not None:
            self.output.learn(output_tokens, sending.max_tokens)
        if whole_s is None:
            return
        if not sending.stream:
            self._good(sending, now)
            self.wholes.record(whole_s, now, alpha)
            tokens = self.output.expected(sending.max_tokens) if output_tokens is None else float(output_tokens)
            self._learn(sending, whole_s, tokens, now)
        elif output_tokens and (first_s := _sane(first_s)) is not None and whole_s > first_s:
            self._learn_rate((whole_s - first_s) / output_tokens)

    def failed(self, lost_s: float, after_content: bool, now: float) -> None:
        """A call failed by the provider's fault after ``lost_s`` seconds."""
        self.failures += 1.0
        if after_content:
            self.cut_p = self._risk(self.cut_p, 1.0, 12.0, now)
            return
        self.failure_p = self._risk(self.failure_p, 1.0, 5.0, now)
        lost = _sane(lost_s) or 0.0
        self.failure_loss_s += (0.3 if self.failure_loss_s else 1.0) * (lost - self.failure_loss_s)

    def called_off(self, sending: Sending, age_s: float, now: float) -> bool:
        """A call was cancelled, or lost a hedge, before any content. True if that counts as a failure."""
        age = _sane(age_s)
        if age is None:
            return False
        if age > sending.overdue_s:
            if sending.load > self.knee:
                self._move_knee(sending.load / (1.0 + age / max(_TINY_S, sending.predicted_s)), 0.25)
                self._is_limited = True
            elif self.samples:
                self._a = _clamped(self._a + 0.5 * log(age / sending.predicted_s))
                self._refresh()
        if age < self.patience_s(sending.stream) or sending.sent_at < self._good_sent_at:
            return False
        self.failed(age, False, now)
        return True

    def forget_failures(self) -> None:
        """Nothing ever failed."""
        self.failure_p = self.cut_p = self.failure_loss_s = self.failures = 0.0

    def _good(self, sending: Sending, now: float) -> None:
        self._stop_waiting(sending)
        if sending.sent_at > self._good_sent_at:
            self._good_sent_at = sending.sent_at
            while self._fresh and (front := next(iter(self._fresh.values()))).sent_at <= sending.sent_at:
                del self._fresh[id(front)]
            self.oldest = next(iter(self._fresh.values()), None)
        self.failure_p = self._risk(self.failure_p, 0.0, 5.0, now)

    def _stop_waiting(self, sending: Sending) -> None:
        sending.is_waiting = False
        if self._fresh.pop(id(sending), None) is not None and self.oldest is sending:
            self.oldest = next(iter(self._fresh.values()), None)

    def _risk(self, risk: float, outcome: float, slowest: float, now: float) -> float:
        """Bring all risks to ``now``, count an event, and return ``risk`` moved towards ``outcome``."""
        fading = self.fading(now)
        passed = max(0.0, now - self._at)
        self.failure_p *= fading
        self.cut_p *= fading
        beta_fading = exp(-passed / SAMPLES_TAU_S)
        self.successes *= beta_fading
        self.failures *= beta_fading
        self._recent = min(500.0, self._recent * exp(-passed / BURST_TAU_S) + 1.0)
        self.samples *= beta_fading
        self._at = max(self._at, now)
        risk *= fading
        return risk + (outcome - risk) / max(slowest, self._recent)

    def _learn(self, sending: Sending, seconds: float, whole_tokens: float | None, now: float) -> None:
        """A time to first content, or (with ``whole_tokens``) to the end of an answer that was no stream."""
        self.samples += 1.0
        idle = self._idle_s if whole_tokens is None else self._idle_s + self.token_s * whole_tokens
        surprise = log(seconds / idle)
        deviation = self._deviation if whole_tokens is None else self._deviation_whole
        gain = max(GAIN, min(1.0, 1.0 / self.samples))
        if self.samples > 2.0:
            held = sending.load / (
                1.0 + max(0.0, seconds - idle) / max(idle, self.first_s + self.token_s * self.output.typical)
            )
            if sending.load > self.knee:
                self._move_knee(held, 0.25)
                self._is_limited = held < 0.8 * sending.load
                if surprise > deviation:
                    return
            elif 2 * sending.load > self.knee and surprise > deviation:
                self._move_knee(held, 0.1)
                gain *= 0.3
            if abs(surprise) > 3.0 * deviation:
                gain = max(gain, GAIN_SURPRISED)
            moved = deviation + 0.06 * (1.25 * min(abs(surprise), 3.0 * deviation) - deviation)
            if whole_tokens is None:
                self._deviation = max(_DEVIATION_MIN, moved)
            else:
                self._deviation_whole = max(_DEVIATION_MIN, moved)
        self._a = _clamped(self._a + gain * surprise)
        self._reference += max(GAIN_REFERENCE, min(1.0, 1.0 / self.samples)) * (self._a - self._reference)
        if whole_tokens is not None:
            self._b = _clamped(self._b + gain * surprise)
        self._refresh()

    def _learn_rate(self, token_s: float) -> None:
        self._rate_n += 1
        surprise = log(max(1e-7, token_s)) - self._b
        gain = 1.0 if self._rate_n == 1 else max(GAIN, 1.0 / self._rate_n)
        self._b = _clamped(self._b + (max(gain, GAIN_SURPRISED) if abs(surprise) > 1.5 else gain) * surprise)
        self._refresh()

    def _move_knee(self, held: float, gain: float) -> None:
        self.knee = max(1.0, self.knee + gain * (held - self.knee))

    def _refresh(self) -> None:
        self._idle_s = exp(self._a)
        self.first_s = self._idle_s * exp(min(0.5, self._deviation * self._deviation / 2.0))
        self.token_s = exp(self._b)


class Evidence:
    """The models lately called, at most ``MODELS_MAX``; the one unused for longest is forgotten."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: OrderedDict[str, ModelEvidence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    def peek(self, model: str) -> ModelEvidence:
        """What is known, or that nothing is. Changes nothing."""
        return self._models.get(model, NOTHING_KNOWN)

    def of(self, model: str) -> ModelEvidence:
        """The evidence to add to."""
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = ModelEvidence()
            if len(self._models) > MODELS_MAX:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(model)
        return known

    def forget_failures(self) -> None:
        """Forget what failed; times stay known."""
        for known in self._models.values():
            known.forget_failures()


NOTHING_KNOWN = ModelEvidence()
"""Of a model never called. Nobody adds to it."""


def _sane(seconds: float | None) -> float | None:
    """A time that can be learned from, or None."""
    if seconds is None or not isfinite(seconds) or seconds < 0.0:
        return None
    return min(max(seconds, _TINY_S), _HUGE_S)


def _clamped(estimate: float) -> float:
    return min(9.0, max(-16.0, estimate))
