"""The proxies of the environment, as other programs take them: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.

Read once: who asks at every call would have to ask a thread. The standard library reads the variables, small letters first,
and knows when ``HTTP_PROXY`` is a client's header in disguise (CGI). What it makes of ``NO_PROXY`` is less than what people
write there, ranges of addresses above all, so that is read here.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.request import getproxies_environment

_ENTRY = re.compile(r"\[(?P<v6>[^\]]*)\](?::(?P<v6_port>\d+))?|(?P<host>[^:]*)(?::(?P<port>\d+))?|(?P<bare>.*)")


class Proxies:
    """Which proxy an origin is to be reached by."""

    def __init__(self) -> None:
        self._by_scheme = getproxies_environment()
        entries = re.split(r"[\s,]+", self._by_scheme.pop("no", ""))
        self._exceptions = [_Exception(entry) for entry in entries if entry]

    def of(self, scheme: str, host: str, port: int) -> str | None:
        """The proxy's URL, or None: direct."""
        proxy = self._by_scheme.get(scheme) or self._by_scheme.get("all")
        if not proxy:
            return None
        name = host.lower().rstrip(".")
        address = _address(name)
        if any(exception.covers(name, address, port) for exception in self._exceptions):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


class _Exception:
    """An entry of ``NO_PROXY``: a name, for itself and all below it, an address, or a range of them; maybe with a port."""

    __slots__ = ("_name", "_network", "_port")

    def __init__(self, entry: str) -> None:
        found = _ENTRY.fullmatch(entry)
        assert found is not None
        port = found["v6_port"] or found["port"]
        self._port = int(port) if port else None
        text = found["v6"] or found["host"] or found["bare"] or ""
        self._name = text.lower().removeprefix("*.").strip(".")
        self._network = _network(text)

    def covers(self, name: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        """Whether an origin is spoken to directly."""
        if self._port is not None and self._port != port:
            return False
        if address is not None and self._network is not None:
            return address in self._network
        return self._name == "*" or name == self._name or (address is None and name.endswith("." + self._name))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
