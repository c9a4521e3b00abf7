"""A stream on its way from an upstream to a client, chunk by chunk as it comes.

Always: nothing goes to the client before the commit; after it every chunk does, and a break is an error frame, never an end
that looks like one.
"""

from collections.abc import Callable

from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects.answer import encoded
from runtime.dialects.errors import error_frame
from runtime.dialects.stream import StreamReader, UsageMode
from runtime.ports import CallFailed, EdgeSink, Headers, UpstreamAnswer


class StreamRelay:
    """Relays one answer.

    ``on_content`` is called when the first content is here, ``on_commit`` before the client gets anything: at once, or after
    ``tokens_held`` tokens (see ``pace``).
    """

    def __init__(
        self,
        answer: UpstreamAnswer,
        sink: EdgeSink,
        mode: UsageMode,
        headers: Headers,
        on_content: Callable[[], None],
        on_commit: Callable[[], None],
        tokens_held: int = 0,
    ) -> None:
        self._answer = answer
        self._told = answer.told
        self._sink = sink
        self._headers = headers
        self._on_content = on_content
        self._on_commit = on_commit
        self.reader = StreamReader(mode, answer.status, tokens_held)
        self.has_content = False
        self.is_committed = False
        self.is_writing = False
        """True: it is the client that is waited for, not the upstream."""

    async def run(self) -> Failure | None:
        """Relay to the end. Returns the failure the upstream itself has told the client after the commit, or None.

        Raises ``CallFailed`` when the stream breaks, before or after the commit, and ``ClientGone``.
        """
        reader, sink = self.reader, self._sink
        if self._told.is_encoded:
            raise CallFailed(encoded(self._answer.status))
        async for chunk in self._answer.chunks():
            relayed = reader.feed(chunk)
            if not self.is_committed:
                if reader.failure is not None:
                    raise CallFailed(reader.failure)
                if reader.has_content and not self.has_content:
                    self._begin()
                if not reader.committed:
                    continue
                await self._commit()
            if relayed:
                self.is_writing = True
                await sink.write(relayed)
                self.is_writing = False
        await self._finish()
        if reader.error is not None:
            sink.abort()
            return reader.error
        await sink.end()
        return None

    def _begin(self) -> None:
        self.has_content = True
        self._on_content()

    async def _commit(self) -> None:
        if not self.has_content:
            self._begin()
        self.is_committed = True
        self._on_commit()
        named = self._told.passing
        if not any(name == "content-type" for name, _ in named):
            named.append(("content-type", "text/event-stream"))
        await self._sink.start(self._answer.status, [*named, ("cache-control", "no-cache"), *self._headers])

    async def _finish(self) -> None:
        reader = self.reader
        relayed = reader.finish()
        if reader.failure is not None and not self.is_committed:
            raise CallFailed(reader.failure)
        if not self.is_committed:
            await self._commit()
        if relayed:
            await self._sink.write(relayed)
        if not reader.is_complete and reader.error is None:
            detail = "the stream ended without a finish reason"
            raise CallFailed(Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.NEVER, "truncated", 200, None, detail))

    async def break_off(self, failure: Failure) -> None:
        """Tell the client that the stream is broken: one error frame, no ``[DONE]``, and the connection cut."""
        detail = f": {failure.detail}" if failure.detail else ""
        whose = "The provider's" if failure.blame is Blame.UPSTREAM else "The"
        message = f"{whose} stream broke off ({failure.code}{detail}); what came before is not the whole answer."
        rest = self.reader.finish(is_clean=False)
        # A frame of ours must not end up inside a line of the upstream's that was cut in the middle.
        separator = b"\n\n" if self.reader.is_mid_event else b""
        await self._sink.write(rest + separator + error_frame(message, "server_error", "upstream_error"))
        self._sink.abort()
