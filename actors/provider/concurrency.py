"""How many calls at once a provider takes well, found out from how it answers (``limits: {max_concurrency: auto}``).

Owns: the limit, the times of an idle provider by kind of call, and one window of samples.
Accepts: the three verdicts on a call: ``succeeded``, ``dropped`` (told that it is too much, no answer in time) and, by saying
nothing, ignored: whatever failed for another reason measured nothing and teaches nothing.
Always: ``1 <= limit <= LIMIT_MAX``; it changes once in a window, or once for all calls that were out together when one was
dropped; it grows only while it is used.

A sample is the time x to the first content (other answers than streams: to the end). With x0 the same on a provider at
ease, T a whole call, and m the calls out when it was sent, itself included, Little's law says how many of them waited::

    y = max(0, x - 1.3 x0) / T          waiting, as a share of a call; 1.3: that much is never put down to load
    queue = m y / (1 + y)               with the median y of a window: as many calls as the limit, 10 at least
    slack = max(1, sqrt(limit) / 2)
    queue < slack                       and the limit is reached: limit += slack (until first hindered: limit / 2)
    queue > 2 slack                     limit = max(0.75 limit, m - queue + slack)
    dropped                             limit x 0.8, if it was more than half used; else it was a rate that was reached

Since ``m - queue`` is what is really served at once, noise cannot take the limit to 1: at a few calls the queue never
exceeds the slack. Near where a call was dropped lately the limit creeps (slack / 8), so that not every rise is refused.

x0 (as a logarithm, so that tails weigh little) and T are learned from calls sent while the limit was half used at most. A
window counts calls sent within it, and a whole limit of them, for the first to answer are the quickest. Under
steady load there are none, and a limit judged against times of its own making would creep for ever; so from time to time
it is halved for a few calls that show the provider at ease: after 4 windows, then 8, 16, up to 64.

Sources: Netflix concurrency-limits (Vegas and Gradient2 limits, windowed samples, the verdicts success, ignore, dropped,
no growth below half use, ``sqrt`` queue); Brakmo and Peterson, TCP Vegas, 1995; Little's law; the probe at ease is that of
BBR (Cardwell et al., 2016); AIMD: Chiu and Jain, 1989.
"""

from collections import OrderedDict
from math import exp, log, sqrt
from typing import NamedTuple

from actors.provider.sanity import sane_s

LIMIT_FIRST = 16
LIMIT_MAX = 1000
SAMPLES_MIN, SAMPLES_MAX = 10, LIMIT_MAX
"""Of a window."""
WINDOW_S_MAX = 60.0
"""A window that is not full by then begins anew: what it has is old."""
KINDS_MAX = 16
"""Kinds of calls (model, stream or not) whose times at ease are kept; the one unused for longest is forgotten."""
TOLERANCE = 1.3
DROP_FACTOR = 0.8
SHRINK_MIN = 0.75
"""No window takes more of the limit."""
DROP_MEMORY_S = 60.0
EASE_WINDOWS_FIRST, EASE_WINDOWS_MAX = 4, 64
EASE_SAMPLES = 10
GAIN = 0.1


class Sample(NamedTuple):
    """One call that was answered. Times in s, monotonic or a span."""

    kind: str
    """Calls of a kind take alike: the model, and whether it is a stream."""
    sent_at: float
    beside: int
    """Calls out when it was sent, itself included."""
    is_at_ease: bool
    """So few were out (``is_at_ease`` when it was sent) that it shows the provider at ease."""
    first_s: float
    """To the first content; to the end where the answer was no stream."""


class _Kind:
    """Times of one kind of call at a provider at ease: the logarithm of x, and a whole call."""

    __slots__ = ("count", "log_first", "whole_s")

    def __init__(self) -> None:
        self.count = 0
        self.log_first = 0.0
        self.whole_s = 0.0

    def learn(self, first_s: float) -> None:
        self.count += 1
        self.log_first += max(GAIN, 1.0 / self.count) * (log(first_s) - self.log_first)

    def waited(self, first_s: float) -> float:
        """Waiting as a share of a whole call."""
        base_s = exp(self.log_first)
        return max(0.0, first_s - TOLERANCE * base_s) / max(base_s, self.whole_s)


class AdaptiveLimit:
    """The limit of one provider, times in s.

    ``limit`` is what counts now: half of what was found while the provider is looked at at ease.
    """

    __slots__ = (
        "_cut_at",
        "_dropped_at",
        "_dropped_limit",
        "_ease_from",
        "_ease_left",
        "_ease_windows",
        "_in_window",
        "_is_rising",
        "_kinds",
        "_peak",
        "_value",
        "_window_from",
        "_windows",
        "limit",
    )  # fmt: skip

    def __init__(self, now: float, first: float = LIMIT_FIRST) -> None:
        self._value = _bounded(first)
        self.limit = int(self._value)
        self._is_rising = True
        """Until first hindered the limit grows by half in each window: slow start."""
        self._kinds: OrderedDict[str, _Kind] = OrderedDict()
        self._window_from = now
        self._in_window: list[tuple[float, int]] = []
        self._peak = 0
        self._windows = 0
        """Since the provider was last seen at ease."""
        self._ease_windows = EASE_WINDOWS_FIRST
        self._ease_left = 0
        """Calls that are still to be seen at ease; 0: no probe is under way."""
        self._ease_from = 0.0
        self._cut_at = float("-inf")
        self._dropped_at = float("-inf")
        self._dropped_limit = 0.0

    def __repr__(self) -> str:
        return f"at most {self._value:.1f} at once{', at ease' if self._ease_left else ''}"

    def is_at_ease(self, beside: int) -> bool:
        """Whether a call sent now, with so many out, itself included, shows how quick the provider is at ease.

        To be asked when it is sent: later the limit is another, and the stragglers of another time would be taken for it.
        """
        return beside == 1 or 2 * beside <= self._value

    def succeeded(self, sample: Sample, now: float) -> None:
        """A call was answered: for streams, its first content is here."""
        first_s = sane_s(sample.first_s)
        if first_s is None:
            return
        if self._ease_left and now - self._ease_from > WINDOW_S_MAX:
            self._end_ease()
        kind = self._kind(sample.kind)
        if sample.is_at_ease:
            kind.learn(first_s)
            self._seen_at_ease(sample, now)
        elif not kind.count:
            # Nothing to compare it with. If that is so of all kinds, look at the provider at ease now.
            if not any(known.count for known in self._kinds.values()):
                self._begin_ease(now)
            return
        if self._ease_left or sample.sent_at < self._window_from:
            return
        self._peak = max(self._peak, sample.beside)
        self._in_window.append((kind.waited(first_s), sample.beside))
        if len(self._in_window) >= max(SAMPLES_MIN, self._value):
            self._judge(now)
        elif now - self._window_from > WINDOW_S_MAX:
            self._begin_window(now)

    def ended(self, kind: str, whole_s: float) -> None:
        """A call sent at ease took ``whole_s`` to its good end: what waiting is compared with."""
        seconds, known = sane_s(whole_s), self._kinds.get(kind)
        if seconds is not None and known is not None:
            known.whole_s += (GAIN if known.whole_s else 1.0) * (seconds - known.whole_s)

    def dropped(self, sent_at: float, beside: int, now: float) -> None:
        """A call was refused for too much load, or not answered in time."""
        if sent_at < self._cut_at or 2 * beside <= self._value:
            # It was out together with one that has cut the limit; or so few were that it was a rate that was reached.
            return
        self._dropped_at, self._dropped_limit = now, self._value
        self._is_rising = False
        self._set(DROP_FACTOR * self._value)
        self._cut_at = now
        self._begin_window(now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        if not 1 <= self.limit <= LIMIT_MAX or not 1.0 <= self._value <= LIMIT_MAX:
            return f"limit {self.limit}, {self._value}"
        if len(self._in_window) > SAMPLES_MAX or len(self._kinds) > KINDS_MAX:
            return f"{len(self._in_window)} samples of {len(self._kinds)} kinds"
        return None

    def _kind(self, name: str) -> _Kind:
        known = self._kinds.get(name)
        if known is None:
            known = self._kinds[name] = _Kind()
            if len(self._kinds) > KINDS_MAX:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(name)
        return known

    def _judge(self, now: float) -> None:
        """A window is full: change the limit, or let it be."""
        count = len(self._in_window)
        waited = sorted(wait for wait, _ in self._in_window)[count // 2]
        beside = sum(out for _, out in self._in_window) / count
        queue = beside * waited / (1.0 + waited)
        slack = max(1.0, sqrt(self._value) / 2.0)
        if queue > 2.0 * slack:
            self._is_rising = False
            self._set(max(SHRINK_MIN * self._value, min(self._value, beside - queue + slack)))
            self._cut_at = now
        elif queue < slack and self._is_used:
            self._set(self._value + self._step(slack, now))
        self._windows += 1
        if self._windows >= self._ease_windows:
            self._begin_ease(now)
        self._begin_window(now)

    @property
    def _is_used(self) -> bool:
        """Whether the calls of the window came near the limit: how it would bear more, only then they tell."""
        return self._peak >= 0.9 * self._value - 1.0 and 2 * self._peak > self._value

    def _step(self, slack: float, now: float) -> float:
        """How much the limit may grow at once."""
        if now - self._dropped_at < DROP_MEMORY_S and self._value > 0.9 * self._dropped_limit - 1.0:
            return slack / 8.0
        return self._value / 2.0 if self._is_rising else slack

    def _set(self, value: float) -> None:
        self._value = _bounded(value)
        self.limit = max(1, int(self._value / 2.0)) if self._ease_left else int(self._value)

    def _begin_window(self, now: float) -> None:
        self._window_from = now
        self._in_window = []
        self._peak = 0

    def _begin_ease(self, now: float) -> None:
        self._ease_left = EASE_SAMPLES
        self._ease_from = now
        self._set(self._value)

    def _seen_at_ease(self, sample: Sample, now: float) -> None:
        if not self._ease_left:
            # Seen without being asked for: no probe is due for a while.
            self._windows = max(0, self._windows - 1)
        elif sample.sent_at >= self._ease_from:
            self._ease_left -= 1
            if not self._ease_left:
                self._ease_windows = min(EASE_WINDOWS_MAX, 2 * self._ease_windows)
                self._end_ease()
                self._begin_window(now)

    def _end_ease(self) -> None:
        self._ease_left = self._windows = 0
        self._set(self._value)


def _bounded(value: float) -> float:
    return 1.0 if not value >= 1.0 else float(LIMIT_MAX) if value > LIMIT_MAX else value
