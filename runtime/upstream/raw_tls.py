"""TLS to providers: the system's trust, the host's name checked, and sessions continued where they were left.

A handshake anew costs a round trip more and the checking of certificates. asyncio has no way to say which session to go on
with, but it asks the context to make the connection's SSL object, and there the session is handed in.
"""

import ssl
from typing import cast

SESSIONS_MAX = 1024


class ClientContext(ssl.SSLContext):
    """One for all providers. The system's certificates count, and so do ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``."""

    sessions: dict[str | None, ssl.SSLSession]
    """The last with each host, by the name that was checked. Used up or forgotten over there, it only costs what it would have
    saved."""

    @classmethod
    def made(cls) -> "ClientContext":
        """Reads the system's certificates, which takes milliseconds."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.sessions = {}
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Make the SSL object of a connection, to go on with the last session with its host."""
        last = session or self.sessions.get(cast(str | None, server_hostname))
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, last)

    def keep(self, host: str, tls: ssl.SSLObject) -> None:
        """A connection to ``host`` has served: by now the other side has sent what its session can be continued by."""
        session = tls.session
        if session is None:
            return
        if len(self.sessions) >= SESSIONS_MAX:
            self.sessions.clear()
        self.sessions[host] = session

    def forget(self, host: str) -> None:
        """A handshake with ``host`` failed: the next begins anew."""
        self.sessions.pop(host, None)
