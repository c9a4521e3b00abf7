"""Relaying a stream: when it counts as begun, what it used, whether it came to its end. Sans-I/O.

Owns: the bytes held before the commit, and what was learnt of the stream.
Accepts: the upstream's chunks in order, then ``finish``.
Always: until the commit nothing is given out, and a failure can still go elsewhere without a trace. From then on every
chunk goes on as it came; only the usage chunk that we asked for and the client did not is taken out.
"""

from enum import StrEnum
from typing import Any

import orjson

from messages.calls import Usage
from messages.failures import Failure
from runtime.dialects.answer import unreadable
from runtime.dialects.errors import error_in, failure_of_error
from runtime.dialects.events import Verdict, is_dull, plain_characters, verdict_on
from runtime.dialects.request import CHARACTERS_PER_TOKEN
from runtime.dialects.sse import EventTooLarge, SseSplitter, event_data
from runtime.dialects.usage import choice_characters, estimated_usage, usage_in

HELD_BYTES_MAX = 64 * 1024
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_DONE = b"[DONE]"
_REASONS_MAX = 16


class UsageMode(StrEnum):
    """Where a stream's usage comes from."""

    REQUESTED = "requested"
    """The client asked for it: its chunk is the client's."""
    INSERTED = "inserted"
    """We asked for it: its chunk is ours and is not passed on."""
    ESTIMATE = "estimate"
    """Nobody asked: the text is counted as it goes by."""


class StreamReader:
    """One stream, from its first byte to its end."""

    __slots__ = (
        "_characters",
        "_content_events",
        "_ended",
        "_envelope_bytes",
        "_has_done",
        "_has_finished",
        "_held",
        "_is_blind",
        "_is_counting",
        "_is_dropping",
        "_kept",
        "_splitter",
        "_status",
        "_tokens_held",
        "_uncounted_bytes",
        "_uncounted_events",
        "_usage",
        "committed",
        "error",
        "failure",
        "finish_reasons",
        "has_content",
        "model",
        "response_id",
    )

    def __init__(self, mode: UsageMode, status: int = 200, tokens_held: int = 0) -> None:
        """``tokens_held``: the commit waits for so many tokens or the end, where a stream must show its rate first."""
        self.committed = False
        self.has_content = False
        """True: what would commit is here."""
        self.failure: Failure | None = None
        """Why there is no stream. Before the commit only: nothing was given out."""
        self.error: Failure | None = None
        """An error the upstream sent after the commit; it has been passed on."""
        self.response_id = ""
        self.model = ""
        self.finish_reasons: list[str] = []
        self._status = status
        self._is_dropping = mode is UsageMode.INSERTED
        self._is_counting = mode is UsageMode.ESTIMATE
        self._splitter = SseSplitter()
        self._held = bytearray()
        self._kept: list[bytes] = []
        self._usage: Usage | None = None
        self._tokens_held = tokens_held
        self._content_events = 0
        """Before the commit."""
        self._characters = 0
        self._envelope_bytes = 0
        self._uncounted_bytes = 0
        self._uncounted_events = 0
        self._has_done = False
        self._has_finished = False
        self._is_blind = False
        self._ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return what is to be relayed now. Nothing once ``failure`` is set."""
        if self.committed:
            return self._relay(chunk)
        if self.failure is not None:
            return b""
        return self._hold(chunk)

    def finish(self, is_clean: bool = True) -> bytes:
        """The body has ended (``is_clean``: by itself, not broken off); return the last bytes to be relayed.

        If nothing was committed, ``failure`` is set, unless the body broke off and the caller knows better why. Part of an
        event that is still held when the body breaks off is dropped: the client could not read it.
        """
        rest = self._splitter.pending if is_clean and not self._is_blind else b""
        relayed = b""
        if rest and self.failure is None:
            # Many end their last event with one line end, or none.
            if not self.committed:
                relayed = self._last_hope(rest)
            elif not self._note(rest) and self._is_dropping:
                relayed = rest
        if is_clean and not self.committed and self.failure is None:
            self.failure = self._too_short()
        self._ended = is_clean
        return relayed

    @property
    def is_mid_event(self) -> bool:
        """True if what was relayed stops within an event, so that an error frame needs a blank line before it."""
        return self.committed and not self._is_dropping and (self._is_blind or self._splitter.has_pending)

    @property
    def is_complete(self) -> bool:
        """True if the stream came to its proper end: ``[DONE]``, or a finish reason and a clean end of the body."""
        return self.error is None and (self._has_done or (self._has_finished and self._ended))

    def usage(self, prompt_tokens: int) -> Usage:
        """What was used so far: as the upstream says, else estimated (``prompt_tokens`` is the caller's estimate)."""
        if self._usage is not None:
            return self._usage
        # Events that were not parsed count by their length, less the length of one without its text.
        unseen = self._uncounted_bytes - self._uncounted_events * self._envelope_bytes
        return estimated_usage(prompt_tokens, self._characters + max(0, unseen))

    def _hold(self, chunk: bytes) -> bytes:
        self._held += chunk
        try:
            events = self._splitter.feed(chunk)
        except EventTooLarge:
            return self._go_blind()
        for event in events:
            if self.committed:
                if not self._note(event):
                    self._kept.append(event)
            elif self._judge(event):
                return b""
        if not self.committed and len(self._held) > HELD_BYTES_MAX:
            self.committed = True
        return self._release() if self.committed else b""

    def _judge(self, event: bytes) -> bool:
        """Look at an event before the commit: hold it, commit, or fail (True)."""
        verdict, parsed = verdict_on(event)
        if verdict is Verdict.FAIL:
            if parsed is None:
                self.failure = unreadable("not_json", self._status, "an event of the stream is not JSON")
            else:
                self.failure = failure_of_error(error_in(parsed), self._status)
            return True
        if verdict is Verdict.DONE:
            if not self.has_content:
                self.failure = self._too_short()
                return True
            self._has_done = True
        is_ours = self._learn(parsed, len(event)) if parsed is not None else False
        if not is_ours:
            self._kept.append(event)
        if verdict is Verdict.COMMIT:
            self.has_content = True
            self._content_events += 1
        self.committed = self.has_content and (self._has_done or self._has_finished or self._tokens_seen() >= self._tokens_held)
        return False

    def _tokens_seen(self) -> float:
        """Of the content before the commit: one for each event at least, for some languages have a token to a character."""
        return max(self._content_events, self._characters / CHARACTERS_PER_TOKEN)

    def _too_short(self) -> Failure:
        """The stream is over and was not committed."""
        if self.has_content:
            return unreadable("truncated", self._status, "the stream ended without a finish reason")
        return unreadable("empty", self._status, "the stream ended before any content")

    def _release(self) -> bytes:
        """Everything held, at the commit."""
        out = b"".join(self._kept) if self._is_dropping else bytes(self._held)
        self._held = bytearray()
        self._kept = []
        return out

    def _relay(self, chunk: bytes) -> bytes:
        splitter = self._splitter
        if self._is_blind:
            self._held = (self._held + chunk)[-len(_DONE) - 4 :]
            self._has_done = self._has_done or _DONE in self._held
            self._uncounted_bytes += len(chunk)
            return chunk
        if chunk.endswith(_EVENT_ENDS) and not splitter.has_pending and self._skim(chunk):
            # Whole events that say nothing but text: the usual case.
            return chunk
        try:
            events = splitter.feed(chunk)
        except EventTooLarge:
            held = self._go_blind()
            return held if self._is_dropping else chunk
        if self._is_dropping:
            return b"".join([event for event in events if not self._note(event)])
        for event in events:
            self._note(event)
        return chunk

    def _go_blind(self) -> bytes:
        """An event is longer than any we read: relay without looking. Returns the bytes that were held."""
        held = self._splitter.pending if self.committed or self._is_dropping else bytes(self._held)
        if self._is_dropping and not self.committed:
            held = b"".join(self._kept) + held
        self._splitter = SseSplitter()
        self._held = bytearray()
        self._kept = []
        self.committed = self._is_blind = True
        self._uncounted_bytes += len(held)
        return held

    def _note(self, event: bytes) -> bool:
        """Look at an event after the commit. True: it is the usage chunk that only we asked for."""
        if self._skim(event):
            return False
        data = event_data(event)
        if data is None:
            return False
        if data.strip() == _DONE:
            self._has_done = True
            return False
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        return isinstance(parsed, dict) and self._learn(parsed, len(event))

    def _skim(self, events: bytes) -> bool:
        """Count whole events by their look, if they say nothing but text. False: they have to be read."""
        if not is_dull(events):
            return False
        if not self._is_counting:
            self._uncounted_bytes += len(events)
            self._uncounted_events += events.count(b"data:")
            return True
        characters = plain_characters(events)
        self._characters += characters or 0
        return characters is not None

    def _learn(self, parsed: dict[str, Any], event_bytes: int) -> bool:
        """Take from an event what we want to know. True: it is the usage chunk that only we asked for."""
        if not self.response_id and type(parsed.get("id")) is str:
            self.response_id = parsed["id"]
        if not self.model and type(parsed.get("model")) is str:
            self.model = parsed["model"]
        usage = usage_in(parsed)
        if usage is not None:
            self._usage = usage
        if self.committed and (error := error_in(parsed)):
            self.error = failure_of_error(error, self._status)
        choices = parsed.get("choices")
        if not choices or not isinstance(choices, list):
            return self._is_dropping and choices == [] and usage is not None
        characters = 0
        for choice in choices:
            if isinstance(choice, dict):
                characters += choice_characters(choice)
                reason = choice.get("finish_reason")
                if reason:
                    self._has_finished = True
                    if len(self.finish_reasons) < _REASONS_MAX:
                        self.finish_reasons.append(str(reason))
        self._characters += characters
        if characters:
            self._envelope_bytes = event_bytes - characters
        return False

    def _last_hope(self, rest: bytes) -> bytes:
        """The body has ended, nothing is committed, and some bytes are no whole event yet."""
        if rest.lstrip()[:1] in (b"{", b"["):
            self.failure = _not_a_stream(rest, self._status)
        elif not self._judge(rest) and self.committed:
            return self._release()
        return b""


def _not_a_stream(body: bytes, status: int) -> Failure:
    """A body of plain JSON where a stream was asked for."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and (error := error_in(parsed)):
        return failure_of_error(error, status)
    return unreadable("not_a_stream", status, "a stream was asked for and a plain body came")
