"""What the playbooks that use every tool need: servers of all kinds, and credentials for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app.embedded.nats import EmbeddedNats
from app.embedded.postgres import EmbeddedPostgres
from app.wire import CredentialPut
from tests.keychain import authority
from tests.keychain.authority import Authority
from tests.system.plane import System
from tests.tools import mcp_server, server

PLAYBOOKS = Path(__file__).parent / "playbooks"
CHILD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: toolbox_child, path: tests/toolbox_child}
workload: {n: 0}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: answer}]}}
- {step: answer, tool: {kind: noop, result: {n: "{{ n }}"}}}
"""
WORD = 'canary "word/with+odd=signs 3c41'
BASIC = "canary-basic-password-91ab"
WRONG = "canary-wrong-password-55e0"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The servers that the playbooks' tools talk to."""

    authority: Authority
    web: server.Server
    mcp: mcp_server.Server
    postgres: str
    nats: str

    @property
    def payload(self) -> dict[str, Any]:
        """Where they are, for the playbooks' workload."""
        return {"authority": self.authority.url, "web": self.web.url, "mcp": self.mcp.url}

    def register(self, system: System) -> None:
        """Make the credentials and the sub-playbook known."""
        for name, (kind, data) in self._credentials().items():
            system.client.credential_put(CredentialPut(name=name, type=kind, data=data))
        system.client.register(CHILD)

    def _credentials(self) -> dict[str, tuple[str, dict[str, Any]]]:
        client = {"client_id": "me", "client_secret": authority.CLIENT_SECRET}
        client["token_url"] = f"{self.authority.url}/oauth/token"
        vault = {"url": self.authority.url}
        return {
            "toolbox_pg": ("postgres", {"url": self.postgres}),
            "toolbox_nats": ("nats", {"url": self.nats}),
            "toolbox_vault": ("vault", {**vault, "token": authority.VAULT_TOKEN}),
            "toolbox_client": ("oauth2", client),
            "leaky_generic": ("generic", {"word": WORD}),
            "leaky_basic": ("basic", {"username": "me", "password": BASIC}),
            "leaky_pg": ("postgres", {"url": _with_password(self.postgres, WRONG)}),
            "leaky_nats": ("nats", {"url": _with_password(self.nats, WRONG)}),
            "leaky_vault": ("vault", {**vault, "token": WRONG}),
        }

    def secrets(self) -> list[str]:
        """Every secret that the playbooks are told, and that servers made up for them."""
        known = [WORD, BASIC, WRONG, authority.CLIENT_SECRET, authority.VAULT_TOKEN]
        kept = [text for fields in authority.SECRETS.values() for text in fields.values()]
        logins = [_password(self.postgres), _password(self.nats)]
        return [
            text
            for text in (*known, *kept, *logins, *self.authority.tokens)
            if text != "app"  # a user's name
        ]


@contextmanager
def toolbox(home: Path) -> Iterator[Toolbox]:
    """All of them, with a Postgres and a NATS of their own below *home*."""
    with ExitStack() as exits:
        (home / "postgres").mkdir(parents=True)
        postgres = exits.enter_context(EmbeddedPostgres(home / "postgres"))
        nats = exits.enter_context(EmbeddedNats(home / "nats"))
        yield Toolbox(
            exits.enter_context(authority.authority()),
            exits.enter_context(server.running()),
            exits.enter_context(mcp_server.running()),
            postgres.warehouse_url,
            nats.url,
        )


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")


def _with_password(url: str, password: str) -> str:
    return url.replace(urlsplit(url).password or "", password)
