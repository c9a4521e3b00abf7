"""The proxies of the environment, as other programs take them: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.

Read once: who asks at every call would have to ask a thread.
"""

from urllib.request import getproxies_environment, proxy_bypass


class Proxies:
    """Which proxy an origin is to be reached by."""

    def __init__(self) -> None:
        self._by_scheme = getproxies_environment()

    def of(self, scheme: str, host: str, port: int) -> str | None:
        """The proxy's URL, or None: direct. An entry of ``NO_PROXY`` may name a port."""
        if not self._by_scheme:
            return None
        proxy = self._by_scheme.get(scheme) or self._by_scheme.get("all")
        if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"
