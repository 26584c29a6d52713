"""Which NATS a step means, and how it says who it is: what credentials and inline keys hold."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import ToolError
from app.settings import Settings
from app.tools.auth import first
from app.tools.web.policy import policy_of

#: The byte before a user's public key in an nkey; its text begins with U.
USER = 20 << 3
DEFAULT_PORT = 4222
_PART = re.compile(r"-{3,}BEGIN [^-]+-{3,}\s+([^\s-]\S*)\s+-{3,}END [^-]+-{3,}")


@dataclass(frozen=True, slots=True)
class Server:
    """One NATS and one way in; connections are shared by those for which it is the same."""

    urls: tuple[str, ...] = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    #: A user's JWT, where it takes one beside the seed.
    jwt: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where it is, without user and password."""
        return ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in self.urls)


def server_of(fields: Mapping[str, Any]) -> Server:
    """The server that *fields* of a credential, or of a tool, describe. Raises ``ToolError``."""
    listed = fields.get("servers") or fields.get("url")
    url = first(fields, "url", "nats_url", "servers", "server", "endpoint", "value")
    if isinstance(listed, list):
        url = ",".join(map(str, listed))
    host = first(fields, "host", "hosts")
    if url is None and host is not None:
        url = f"nats://{host}:{first(fields, 'port') or 4222}"
    if url is None:
        raise ToolError(
            "nats needs url, or auth with a credential that holds one; the NATS of the servers "
            "themselves is not for playbooks",
            kind="schema",
        )
    urls = tuple(_checked(part.strip()) for part in url.split(",") if part.strip())
    jwt, seed = _creds(first(fields, "creds", "credentials", "nats_creds"))
    jwt = jwt or first(fields, "jwt")
    return Server(
        urls,
        user=first(fields, "user", "username", "nats_user"),
        password=first(fields, "password", "nats_password"),
        token=first(fields, "token", "nats_token"),
        jwt=jwt,
        seed=seed or first(fields, "nkey", "nkey_seed", "seed"),
    )


def check_place(server: Server, settings: Settings) -> None:
    """Refuse the NATS of the installation itself to whoever has no login for it of their own.

    Without one its streams would be open to playbooks. Raises ``ToolError``.
    """
    if server.user or server.token or server.jwt or server.seed:
        return
    policy = replace(policy_of(settings), private=True)
    for url in server.urls:
        parts = urlsplit(url)
        if parts.username or parts.password:
            continue
        policy.check_place(parts.hostname or "", parts.port or DEFAULT_PORT)


def password_in(url: str | None) -> str | None:
    """The password that stands in *url* itself."""
    try:
        return urlsplit(url or "").password
    except ValueError:
        return None


def options(server: Server) -> dict[str, Any]:
    """What nats-py's ``connect`` is told. Raises ``ToolError`` for a seed that is none."""
    given: dict[str, Any] = {"servers": list(server.urls)}
    if server.user is not None:
        given |= {"user": server.user, "password": server.password or ""}
    if server.token is not None:
        given["token"] = server.token
    if server.seed is not None:
        key = _key(server.seed)
        given["signature_cb"] = lambda nonce: base64.b64encode(key.sign(nonce.encode()))
    if server.jwt is not None:
        jwt = bytearray(server.jwt.encode())
        given["user_jwt_cb"] = lambda: jwt
    return given


def public_key(seed: str) -> str:
    """The public nkey (U…) of a user's *seed*."""
    raw = _key(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    body = bytes([USER]) + raw
    return (
        base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little"))
        .decode()
        .rstrip("=")
    )


def _key(seed: str) -> Ed25519PrivateKey:
    text = seed.strip()
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
        body, check = raw[:-2], int.from_bytes(raw[-2:], "little")
        if len(body) != 34 or not text.startswith("SU") or binascii.crc_hqx(body, 0) != check:
            raise ValueError
        return Ed25519PrivateKey.from_private_bytes(body[2:])
    except (ValueError, binascii.Error):
        # Without the cause: it may hold the seed.
        raise ToolError("the nkey is not the seed of a user (SU…)", kind="auth") from None


def _creds(text: str | None) -> tuple[str | None, str | None]:
    """JWT and seed in the text of a ``.creds`` file."""
    if text is None:
        return None, None
    parts = _PART.findall(text)
    if len(parts) != 2:
        raise ToolError(
            "creds is not the content of a .creds file, with a JWT and a seed", kind="auth"
        )
    return parts[0], parts[1]


def _checked(url: str) -> str:
    given = url if "://" in url else f"nats://{url}"
    try:
        parts = urlsplit(given)
        known = parts.scheme in {"nats", "tls", "ws", "wss"}
        sound = known and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        # Without the URL: a password may stand in it.
        raise ToolError("the url of NATS is malformed; write nats://HOST:PORT", kind="schema")
    return given
