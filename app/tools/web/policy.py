"""Where requests of playbooks may go: which addresses and ports are refused, and why.

Refused always: link-local addresses and those of metadata services, and the Postgres and NATS of
this installation. Refused by default: its own API. Private and loopback addresses are allowed unless
a setting says otherwise, as most playbooks talk to services beside them. Other notations of an
address (decimal, octal, IPv4 inside IPv6) do not matter here: what is judged is the address that a
connection is about to be made to.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from app.errors import ToolError
from app.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Where clouds and hosts keep what no playbook should read: the metadata services' addresses.
METADATA = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16", "fe80::/10", "fd00:ec2::/64", "fd20:ce::254/128",
        "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
    )
)  # fmt: skip
#: Their names: refused before anyone is asked where they are.
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.ip_network("::/96")
#: Ports where a URL names none.
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432, "nats": 4222, "tls": 4222}
#: How long the addresses of our own servers are taken to stay the same, in seconds.
_KEEP = 60.0
_WORDS = ("allow", "refuse")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of our own servers: what it is, and where."""

    what: str
    host: str
    port: int


@dataclass(frozen=True)
class Policy:
    """What is refused, as the settings of a worker say. Equal policies refuse the same."""

    private: bool = True
    own: frozenset[Endpoint] = frozenset()

    @cached_property
    def _ports(self) -> frozenset[int]:
        return frozenset(endpoint.port for endpoint in self.own)

    def check_name(self, host: str, port: int) -> None:
        """Raise ``ToolError`` where *host* alone says enough. Asks nobody."""
        name = host.rstrip(".").lower()
        if name in METADATA_NAMES:
            raise _refused(host, "the name of a metadata service")
        for endpoint in self.own if port in self._ports else ():
            if endpoint.port == port and endpoint.host.rstrip(".").lower() == name:
                raise _refused(f"{host}:{port}", endpoint.what)

    def check(self, host: str, address: str, port: int) -> None:
        """Raise ``ToolError`` where *host*, which is at *address*, may not be reached on *port*."""
        found = ipaddress.ip_address(address.partition("%")[0])
        shown = host if host == address else f"{host} at {address}"
        if is_metadata(found):
            raise _refused(shown, "a link-local or metadata address")
        if not self.private and is_private(found):
            raise _refused(
                shown, "a private or loopback address (setting CALLBOARD_HTTP_PRIVATE is refuse)"
            )
        if port in self._ports:
            self._check_own(shown, found, port)

    def check_place(self, host: str, port: int) -> None:
        """Both, for a client that looks the name up by itself: where it leads now."""
        self.check_name(host, port)
        for address in _addresses(host):
            self.check(host, str(address), port)

    def _check_own(self, shown: str, found: Address, port: int) -> None:
        meant = {_plain(one) for one in _all(found)}
        here = any(map(is_here, meant))
        for endpoint in self.own:
            if endpoint.port != port:
                continue
            theirs = _addresses(endpoint.host)
            if meant & theirs or (here and any(is_here(one) for one in theirs)):
                raise _refused(f"{shown}, port {port}", endpoint.what)


def policy_of(settings: Settings) -> Policy:
    """The policy that *settings* and ``protect`` ask for. Raises ``ToolError`` for a wrong word."""
    for name, word in (
        ("CALLBOARD_HTTP_PRIVATE", settings.http_private),
        ("CALLBOARD_HTTP_OWN_API", settings.http_own_api),
    ):
        if word not in _WORDS:
            raise ToolError(
                f"{name}={word!r} is neither allow nor refuse; set it to one of them", kind="schema"
            )
    key = (
        settings.http_private, settings.http_own_api, settings.url, settings.host, settings.port,
        settings.external_database_url, settings.nats_url, _noted.version,
    )  # fmt: skip
    known = _noted.policies.get(key)
    if known is None:
        known = Policy(settings.http_private == "allow", _own(settings))
        with _noted.lock:
            # One per configuration of the process; the bound is for those who try many.
            if len(_noted.policies) > 100:
                _noted.policies.clear()
            _noted.policies[key] = known
    return known


def protect(what: str, url: str) -> None:
    """Refuse the place that *url* names, too: a server of this installation that no setting tells
    of, such as an embedded one. *what* completes 'X is …'."""
    with _noted.lock:
        _noted.extra |= frozenset(_endpoints(what, url))
        _noted.version += 1


class _Noted:
    """What this process knows beside its settings, and the policies made from both."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.version = 0
        self.extra: frozenset[Endpoint] = frozenset()
        self.policies: dict[tuple[object, ...], Policy] = {}
        self.addresses: dict[str, tuple[float, frozenset[Address]]] = {}


_noted = _Noted()


def _own(settings: Settings) -> frozenset[Endpoint]:
    found = set(_noted.extra)
    if settings.http_own_api == "refuse":
        api = "this installation's own API (setting CALLBOARD_HTTP_OWN_API)"
        found |= set(_endpoints(api, settings.url))
        found.add(Endpoint(api, settings.host, settings.port))
    for what, url in (
        ("this installation's Postgres", settings.external_database_url),
        ("this installation's NATS", settings.nats_url),
    ):
        found |= set(_endpoints(what, url or ""))
    return frozenset(found)


def _endpoints(what: str, urls: str) -> list[Endpoint]:
    """The places that a URL, or several with commas between, names."""
    found = []
    for url in urls.split(","):
        parts = urlsplit(url.strip() if "://" in url else f"nats://{url.strip()}")
        try:
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            continue  # several hosts of Postgres, or none that anyone could connect to
        if parts.hostname and port:
            found.append(Endpoint(what, parts.hostname, port))
    return found


def is_metadata(address: Address) -> bool:
    """Whether *address*, or the IPv4 address inside it, is link-local or of a metadata service."""
    return any(
        one in network
        for one in _all(address)
        for network in METADATA
        if network.version == one.version
    )


def is_private(address: Address) -> bool:
    """Whether *address*, or the IPv4 address inside it, is not one of the public internet."""
    return any(
        not one.is_global or one.is_multicast or (one.version == 4 and one in _SHARED)
        for one in _all(address)
    )


def is_here(address: Address) -> bool:
    """Whether *address* is one of this very machine."""
    address = _plain(address)
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Only an address of this machine can be bound; nothing is sent.
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _plain(address: Address) -> Address:
    """*address* without its disguise as IPv6."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _all(address: Address) -> list[Address]:
    """*address* and the IPv4 addresses it stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    embeds = any(address in network for network in _NAT64)
    if embeds or (address in _COMPATIBLE and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    return [address, *(one for one in inner if one is not None)]


def _addresses(host: str) -> frozenset[Address]:
    """Where one of our own servers is; nowhere, while its name cannot be resolved."""
    now = time.monotonic()
    known = _noted.addresses.get(host)
    if known is None or known[0] < now:
        try:
            found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104 (compared, not bound)
        except (OSError, UnicodeError):
            found = []
        known = (
            now + _KEEP,
            frozenset(
                _plain(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found
            ),
        )
        _noted.addresses[host] = known
    return known[1]


def _refused(shown: str, why: str) -> ToolError:
    return ToolError(
        f"{shown} is {why}, which playbooks may not reach",
        kind="client_error",
        error_code="refused_address",
    )
