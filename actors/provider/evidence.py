"""What is known of one model at one provider: how fast, how loaded, how likely to fail.

Times are estimated as logarithms, so that a factor up and a factor down weigh the same; everything is O(1), bounded and
decaying. The terms of a bid are finished when something is learned, so that a bid costs a few multiplications.

The estimates, with x a first-content time (streams) or a total time (other answers), O output tokens, m calls out::

    F = e^(a + min(0.5, sd^2 / 2)) g         first content of an idle provider; a, sd learned from x
    g = 1 + r (prompt - mean prompt)         what a long prompt takes longer (``prefill``); 1 where that was not seen
    S = e^b                                  seconds per output token
    T = F + S O                              the whole answer
    phi = age / predicted, of the oldest call sent after the last good one, once it is overdue; else 1
    Q = soft max(0, m - c) / c T             queueing beyond the knee c; soft = 1 once queueing was seen, else 0.3
    expected = T phi + 3 Q                   waiting counts three times: whoever waits makes others wait
    p, L                                     chance to fail before content, and the seconds that costs
    cut                                      chance to break after content; p and cut fade with e^(-t / 20 s)

A sample r = ln(x / predicted when idle) is put down to load where the load was high and the time long (it moves the
knee), else to the provider (it moves a). The gain is max(0.12, 1/n), and when |r| > 3 sd it is 0.5: surprised, learn
quickly; 0.9 if the call was one to explore. A call that was called off without content is a censored sample ("at least so
long"), beyond ``patience_s`` a failure.

Sources: ROUTING.md (the policy and the simulation that chose these constants). Quick up, slow down: Finagle's Peak EWMA.
Queue size in the cost: C3 (NSDI 2015), Prequal (NSDI 2024). Knee from latency: Little's law, Netflix concurrency-limits.
phi: the accrual failure detector of Hayashibara et al., 2004. Deviation: Jacobson 1988.
"""

from math import exp, floor, log

from actors.provider.output_length import OutputLength
from actors.provider.overdue import late_and_early, overdue_ages
from actors.provider.prefill import Prefill
from actors.provider.quantiles import Quantiles
from actors.provider.sanity import TINY_S, sane_s
from actors.provider.sending import Sending, Sendings

FIRST_S = 1.0
TOKEN_S = 0.02
"""What is expected before anything was seen: seconds to first content, seconds per token."""
KNEE = 8.0
SOFT = 0.3
QUEUE_WEIGHT = 3.0
RISK_TAU_S = 20.0
BURST_TAU_S = 0.5
SAMPLES_TAU_S = 1800.0
COUNTS_STILL_S = 18.0
"""So long after news the counts are read as they are, 1 % high at most."""
FADING_STEP_S = 0.01
"""Time that passes before estimates fade by it: many calls at once need no exponentials each."""
PATIENCE_S = 2.0
UNKNOWN_PATIENCE_S = 10.0
GAIN = 0.12
GAIN_SURPRISED = 0.5
GAIN_EXPLORED = 0.9
GAIN_REFERENCE = 0.01
UNKNOWN_AGAIN_P = 0.05
TOKENS_MAX = 10_000_000
"""An answer is taken for no longer than that, whatever its usage says."""
NEVER = -1e6
"""So long ago, for what never was: infinity is no JSON."""
_DEVIATION = 0.35
_DEVIATION_MIN = 0.1


class ModelEvidence:
    """The estimates for one model. Fields that a bid reads are public; times in seconds."""

    __slots__ = (
        "_a", "_b", "_good_sent_at", "_later", "_rate_n", "_recent", "_reference", "counts_until", "cut_p", "deviation",
        "deviation_whole", "failure_loss_s", "failure_p", "failures", "first_s", "heard_at", "idle_s", "in_flight", "knee",
        "oldest", "output", "overdue_early_s", "overdue_s", "prefill", "samples", "slowness", "soft", "streams", "successes",
        "token_s", "tokens_per_s", "whole_early", "whole_late", "wholes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._a = log(FIRST_S)
        self._b = log(TOKEN_S)
        self.idle_s = FIRST_S
        self.deviation = self.deviation_whole = _DEVIATION
        self._reference = self._a
        self._rate_n = 0
        self._recent = 0.0
        self.heard_at = NEVER
        """When a call last told something (monotonic s)."""
        self.soft = SOFT
        """How much of the queueing beyond the knee is believed: all of it (1) once queueing was seen."""
        self._good_sent_at = float("-inf")
        self._later = Sendings()
        """Calls sent after ``oldest``."""
        self.oldest: Sending | None = None
        """The oldest call without content that was sent after the last good one."""
        self.samples = 0.0
        self.failures = 0.0
        self.successes = 0.0
        """This and ``failures``: decayed counts as of the last news, good until ``counts_until`` (s)."""
        self.counts_until = float("inf")
        self.in_flight = 0
        self.knee = KNEE
        self.first_s = FIRST_S
        self.token_s = TOKEN_S
        self.tokens_per_s = 0.0
        """Output rate of streams; 0: none was seen."""
        self.slowness = 1.0
        """Time to first content now, as a multiple of what it used to be."""
        self.failure_p = 0.0
        self.failure_loss_s = 0.0
        self.cut_p = 0.0
        self.overdue_s, self.overdue_early_s = late_and_early(FIRST_S, _DEVIATION)
        self.whole_late, self.whole_early = late_and_early(1.0, _DEVIATION)
        """Ages of a stream's call from which it is overdue, while nobody queues; and of others, as multiples of what is
        expected. See ``overdue``."""
        self.output = OutputLength()
        self.prefill = Prefill()
        self.streams = Quantiles()
        self.wholes = Quantiles()

    def __repr__(self) -> str:
        return (
            f"first {self.first_s:.3f} s, {self.token_s * 1000:.2f} ms/token, knee {self.knee:.1f}, "
            f"fails {self.failure_p:.2f}, cut {self.cut_p:.2f}, {self.samples:.1f} samples"
        )

    def known(self, failure_p: float) -> int:
        """Calls behind the estimates, 0 only if nothing is known: no answer ever came, and no failure lately.

        ``failure_p`` is the chance to fail as it stands now. Who has only failed is no unknown to be curious about (else
        it would draw every call to it); once its failures have faded it is one again.
        """
        if self.samples:
            return floor(self.samples + 0.5) or 1
        return 1 if failure_p > UNKNOWN_AGAIN_P else 0

    def faded(self, now: float) -> tuple[float, float, float, float]:
        """``failure_p``, ``cut_p``, ``successes`` and ``failures`` as of ``now`` (s). Changes nothing."""
        since = self.heard_at - now
        if since >= 0.0:
            return self.failure_p, self.cut_p, self.successes, self.failures
        risk, counts = exp(since / RISK_TAU_S), exp(since / SAMPLES_TAU_S)
        return self.failure_p * risk, self.cut_p * risk, self.successes * counts, self.failures * counts

    def scale(self, prompt_tokens: int | None) -> float:
        """First content of a request with such a prompt, as a multiple of that for the mean prompt (g). Changes nothing."""
        prefill = self.prefill
        return prefill.scale(prompt_tokens) if prefill.slope and prompt_tokens is not None else 1.0

    def expected_s(self, output_tokens: float, now: float, scale: float = 1.0) -> float:
        """Expected time (s) of one more request, queueing weighed in; ``scale`` is that of its prompt. Changes nothing."""
        total = self.first_s * scale + self.token_s * output_tokens
        expected = total
        oldest = self.oldest
        if oldest is not None and (age := now - oldest.sent_at) > oldest.overdue_s:
            expected = total * (age / oldest.predicted_s)
        load = self.in_flight + 1
        if load > self.knee:
            expected += QUEUE_WEIGHT * self.soft * (load - self.knee) / self.knee * total
        return expected

    def patience_s(self, stream: bool, scale: float = 1.0) -> float:
        """Age (s) at which a call without content that is called off counts as failed: max(2 s, p95 x 2).

        Twice the p95 stands for the p99, which few samples tell badly (docs/routing.md, Hedging). It is that of all prompts: of
        one that is longer than the mean it is taken times ``scale``.
        """
        seen = self.streams if stream else self.wholes
        return max(PATIENCE_S, 2.0 * seen.p95_s * max(1.0, scale)) if seen.count else UNKNOWN_PATIENCE_S

    def sent(
        self, stream: bool, max_tokens: int | None, now: float, explores: bool = False, prompt_tokens: int | None = None
    ) -> Sending:
        """A call goes out at ``now`` (s). One that ``explores`` brings the first news for a while: it is believed the more."""
        load, is_plain = self.in_flight + 1, stream and self.in_flight < self.knee
        output_tokens = 0.0 if is_plain else self.output.expected(max_tokens)
        predicted, overdue, _early = overdue_ages(self, stream, output_tokens, self.scale(prompt_tokens))
        self.in_flight = load
        sending = Sending(now, stream, max_tokens, predicted, overdue, load, explores, True, prompt_tokens)
        if self.oldest is None:
            self.oldest = sending
        else:
            self._later.add(sending, load)
        return sending

    def restored(self, stream: bool, sent_at: float) -> Sending:
        """A call that was out before a restart: it is counted, and its waiting says nothing."""
        self.in_flight += 1
        return Sending(sent_at, stream, None, FIRST_S, FIRST_S, self.in_flight, is_waiting=False)

    def ended(self, sending: Sending) -> None:
        """A call is over, however it ended. Before anything is learned from it."""
        self.in_flight -= 1
        if sending.is_waiting:
            sending.is_waiting = False
            if self.oldest is sending:
                self.oldest = self._later.take()

    def content(self, sending: Sending, first_s: float | None, now: float, alpha: float) -> None:
        """The first content of a call is here; ``first_s`` (s) where it was a stream's."""
        self._age(now)
        self._good(sending)
        if sending.stream and (first_s := sane_s(first_s)) is not None:
            self.streams.record(first_s, now, alpha)
            self._learn(sending, first_s, None)

    def finished(
        self, sending: Sending, duration_s: float, first_s: float | None, output_tokens: int | None, now: float, alpha: float
    ) -> None:
        """A call ended well. ``output_tokens`` None: not known. Its content, if a stream's, was told before."""
        self._age(now)
        self.successes += 1.0
        if self.cut_p:
            self.cut_p -= self.cut_p / (12.0 if self._recent < 12.0 else self._recent)
        if output_tokens is not None:
            if not 0 <= output_tokens <= TOKENS_MAX:
                output_tokens = max(0, min(output_tokens, TOKENS_MAX))
            self.output.learn(output_tokens, sending.max_tokens)
            self.whole_late, self.whole_early = late_and_early(1.0, max(self.deviation_whole, self.output.deviation))
        whole_s = sane_s(duration_s)
        if whole_s is None:
            return
        if not sending.stream:
            self._recent += 1.0
            self._good(sending)
            self.wholes.record(whole_s, now, alpha)
            tokens = self.output.expected(sending.max_tokens) if output_tokens is None else float(output_tokens)
            self._learn(sending, whole_s, tokens)
        elif output_tokens and (first_s := sane_s(first_s)) is not None and whole_s > first_s:
            self._learn_rate((whole_s - first_s) / output_tokens)

    def failed(self, lost_s: float, after_content: bool, now: float) -> None:
        """A call failed by the provider's fault after ``lost_s`` seconds."""
        self._age(now)
        self.failures += 1.0
        if after_content:
            self.cut_p += (1.0 - self.cut_p) / max(12.0, self._recent)
            return
        self.failure_p += (1.0 - self.failure_p) / max(5.0, self._recent)
        lost = sane_s(lost_s) or 0.0
        self.failure_loss_s += (0.3 if self.failure_loss_s else 1.0) * (lost - self.failure_loss_s)

    def called_off(self, sending: Sending, age_s: float, now: float) -> bool:
        """A call was cancelled, or lost a hedge, before any content. True if that counts as a failure."""
        age = sane_s(age_s)
        if age is None:
            return False
        if age > sending.overdue_s:
            if sending.load > self.knee:
                self._move_knee(sending.load / (1.0 + age / max(TINY_S, sending.predicted_s)), 0.25)
                self.soft = 1.0
            elif self.samples:
                self._a = _clamped(self._a + 0.5 * log(age / sending.predicted_s))
                self._refresh()
        if age < self.patience_s(sending.stream, self.scale(sending.prompt_tokens)) or sending.sent_at < self._good_sent_at:
            return False
        self.failed(age, False, now)
        return True

    def forget_failures(self) -> None:
        """Nothing ever failed."""
        self.failure_p = self.cut_p = self.failure_loss_s = self.failures = 0.0

    def _good(self, sending: Sending) -> None:
        """The provider has answered: what waits since before that says nothing, and failing is less likely."""
        sending.is_waiting = False
        sent_at = sending.sent_at
        if sent_at > self._good_sent_at:
            self._good_sent_at = sent_at
            if self.oldest is not None and self.oldest.sent_at <= sent_at:
                self.oldest = self._later.take(sent_at)
        elif self.oldest is sending:
            self.oldest = self._later.take()
        if self.failure_p:
            self.failure_p -= self.failure_p / (5.0 if self._recent < 5.0 else self._recent)

    def _age(self, now: float) -> None:
        """Bring all that fades to ``now``, and count an event: the more there are lately, the less each one weighs."""
        passed = now - self.heard_at
        recent = self._recent + 1.0
        if passed > FADING_STEP_S:
            self.heard_at = now
            self.counts_until = now + COUNTS_STILL_S
            if self.failure_p or self.cut_p:
                fading = exp(-passed / RISK_TAU_S)
                self.failure_p *= fading
                self.cut_p *= fading
            fading = exp(-passed / SAMPLES_TAU_S)
            self.successes *= fading
            self.failures *= fading
            self.samples *= fading
            recent = self._recent * exp(-passed / BURST_TAU_S) + 1.0
        self._recent = recent if recent < 500.0 else 500.0

    def _learn(self, sending: Sending, seconds: float, whole_tokens: float | None) -> None:
        """A time to first content, or (with ``whole_tokens``) to the end of an answer that was no stream."""
        samples = self.samples = self.samples + 1.0
        output_s, deviation, scale = 0.0, self.deviation, self.scale(sending.prompt_tokens)
        if whole_tokens is not None:
            output_s, deviation = self.token_s * whole_tokens, self.deviation_whole
        idle = self.idle_s * scale + output_s
        surprise = log(seconds / idle)
        gain = slow_gain = 1.0 / samples if samples > 1.0 else 1.0
        if gain < GAIN:
            gain = GAIN
        if samples > 2.0:
            prompt_tokens = sending.prompt_tokens
            if prompt_tokens is not None and prompt_tokens >= 0:
                self._learn_prompt(prompt_tokens, output_s, scale, seconds)
            # Only where the load was high may load be why.
            if 2 * sending.load > self.knee:
                share = self._learn_load(sending.load, seconds, idle, surprise > deviation)
                if share == 0.0:
                    return
                gain *= share
            size = surprise if surprise > 0.0 else -surprise
            if size > 3.0 * deviation:
                size = 3.0 * deviation
                if gain < GAIN_SURPRISED:
                    gain = GAIN_EXPLORED if sending.explores else GAIN_SURPRISED
            deviation += 0.06 * (1.25 * size - deviation)
            if deviation < _DEVIATION_MIN:
                deviation = _DEVIATION_MIN
            if whole_tokens is None:
                self.deviation = deviation
            else:
                self.deviation_whole = deviation
        moved = gain * surprise
        a = self._a + moved
        self._a = a if -16.0 < a < 9.0 else _clamped(a)
        self._reference += (slow_gain if slow_gain > GAIN_REFERENCE else GAIN_REFERENCE) * (self._a - self._reference)
        if whole_tokens is not None:
            b = self._b + moved
            self._b = b if -16.0 < b < 9.0 else _clamped(b)
            self.token_s = exp(self._b)
            if self._rate_n:
                self.tokens_per_s = 1.0 / self.token_s
        self._refresh()

    def _learn_prompt(self, prompt_tokens: int, output_s: float, scale: float, seconds: float) -> None:
        """What a time says of reading prompts. Where their mean moves, so does the time for it; nobody got slower by that."""
        moved = self.prefill.learn(prompt_tokens, self.idle_s, output_s, scale, seconds)
        if moved != 1.0:
            shift = log(moved)
            self._a = _clamped(self._a + shift)
            self._reference += shift
            self._refresh()

    def _learn_load(self, load: int, seconds: float, idle: float, is_long: bool) -> float:
        """What a time says of the knee. Gives the share of it that says something of the provider all the same."""
        total = self.first_s + self.token_s * self.output.typical
        held = load / (1.0 + max(0.0, seconds - idle) / max(idle, total))
        if load > self.knee:
            self._move_knee(held, 0.25)
            self.soft = 1.0 if held < 0.8 * load else SOFT
            return 0.0 if is_long else 1.0
        if is_long:
            self._move_knee(held, 0.1)
            return 0.3
        return 1.0

    def _learn_rate(self, token_s: float) -> None:
        self._rate_n += 1
        surprise = log(token_s if token_s > 1e-7 else 1e-7) - self._b
        gain = 1.0 / self._rate_n
        if gain < GAIN:
            gain = GAIN
        if gain < GAIN_SURPRISED and not -1.5 <= surprise <= 1.5:
            gain = GAIN_SURPRISED
        b = self._b + gain * surprise
        self._b = b if -16.0 < b < 9.0 else _clamped(b)
        self.token_s = exp(self._b)
        self.tokens_per_s = 1.0 / self.token_s

    def _move_knee(self, held: float, gain: float) -> None:
        self.knee = max(1.0, self.knee + gain * (held - self.knee))

    def _refresh(self) -> None:
        a, spread = self._a, self.deviation
        idle = self.idle_s = exp(a)
        self.overdue_s, self.overdue_early_s = late_and_early(idle, spread)
        spread *= spread / 2.0
        self.first_s = idle * exp(spread if spread < 0.5 else 0.5)
        self.slowness = exp(a - self._reference)


def _clamped(estimate: float) -> float:
    if estimate > 9.0:
        return 9.0
    return estimate if estimate > -16.0 else -16.0
