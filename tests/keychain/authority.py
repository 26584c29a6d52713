"""A real HTTP server that plays those who keep secrets and hand out tokens.

It speaks as HashiCorp Vault, Google's token endpoint and Secret Manager, AWS (JSON protocol), Azure,
and any server of OAuth 2, and writes down what it was asked. Values are canaries: none may turn up
where secrets do not belong.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CLIENT_SECRET = "canary-client-secret-5f1c"
VAULT_TOKEN = "canary-vault-token-9a2e"
SECRETS = {
    "app/db": {"username": "app", "password": "canary-vault-password-77d0"},
    "app/plain": {"value": "canary-vault-plain-1b3f"},
}
GCP_SECRET = "canary-gcp-secret-0c9d"
AWS_SECRET = "canary-aws-secret-4e8a"
AWS_PARAMETER = "canary-aws-parameter-2f6b"
AZURE_SECRET = "canary-azure-secret-8d5c"

Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body).items()}


@dataclass(slots=True)
class Authority:
    """The server: ``url``, what it was asked, and how it shall behave."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    #: Answers that come before all others, by path.
    instead: dict[str, Answer] = field(default_factory=dict)
    #: Seconds that tokens hold.
    expires_in: float | None = 3600
    #: Cleared: token requests wait until it is set.
    gate: threading.Event = field(default_factory=threading.Event)
    #: Whether each refresh token can be used once.
    rotates: bool = False
    refresh_token: str = "canary-refresh-0"
    tokens: list[str] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def of(self, path: str) -> list[Asked]:
        """The requests for *path*."""
        return [each for each in self.asked if each.path == path]

    def answer(self, asked: Asked) -> Answer:
        with self._guard:
            self.asked.append(asked)
        if asked.path.endswith("/token"):
            assert self.gate.wait(30)
        if asked.path in self.instead:
            return self.instead[asked.path]
        if asked.path == "/echo":
            return 200, {"headers": asked.headers, "body": asked.body}
        if asked.path.startswith("/v1/auth/") or asked.path.startswith("/v1/secret"):
            return self._vault(asked)
        if asked.path.startswith("/v1/kv1/"):
            return self._vault(asked)
        if asked.path.startswith("/v1/projects/"):
            return self._google(asked)
        if asked.path.startswith("/secrets/"):
            return self._azure(asked)
        if "x-amz-target" in asked.headers:
            return self._aws(asked)
        if asked.path.endswith("/token"):
            return self._token(asked)
        return 404, {"error": "no such thing"}

    # ------------------------------------------------------------------ OAuth, Google, Azure tokens
    def _token(self, asked: Asked) -> Answer:
        form = asked.form if "json" not in asked.headers["content-type"] else json.loads(asked.body)
        with self._guard:
            number = len(self.tokens) + 1
            token = f"canary-access-token-{number:04d}-f00d"
            if form.get("assertion"):
                return self._for_assertion(form["assertion"], token)
            if not self._is_client(asked, form):
                return 401, {"error": "invalid_client", "error_description": CLIENT_SECRET}
            more = {}
            if form.get("grant_type") == "refresh_token":
                if form.get("refresh_token") != self.refresh_token:
                    return 400, {"error": "invalid_grant"}
                if self.rotates:
                    self.refresh_token = f"canary-refresh-{number}"
                    more["refresh_token"] = self.refresh_token
            self.tokens.append(token)
        life = {} if self.expires_in is None else {"expires_in": self.expires_in}
        return 200, {"access_token": token, "token_type": "Bearer", "scope": "read", **life, **more}

    def _is_client(self, asked: Asked, form: dict[str, str]) -> bool:
        basic = base64.b64encode(f"me:{CLIENT_SECRET}".encode()).decode()
        by_header = asked.headers.get("authorization") == f"Basic {basic}"
        return by_header or (form.get("client_id"), form.get("client_secret")) == (
            "me",
            CLIENT_SECRET,
        )

    def _for_assertion(self, assertion: str, token: str) -> Answer:
        claims = part(assertion, 1)
        assert claims["exp"] > time.time()
        if claims["iss"] != "robot@project.example":
            return 400, {"error": "invalid_grant"}
        self.tokens.append(token)
        if "target_audience" in claims:
            end = int(time.time()) + 1800
            return 200, {"id_token": jwt({"aud": claims["target_audience"], "exp": end})}
        return 200, {"access_token": token, "expires_in": 3600}

    # ------------------------------------------------------------------ who keeps secrets
    def _vault(self, asked: Asked) -> Answer:
        if asked.path.endswith("/login"):
            given = json.loads(asked.body)
            good = given.get("role_id") == "role" and given.get("secret_id") == CLIENT_SECRET
            return (200, {"auth": {"client_token": VAULT_TOKEN}}) if good else (400, {"errors": []})
        if asked.headers.get("x-vault-token") != VAULT_TOKEN:
            return 403, {"errors": ["permission denied"]}
        version = 1 if asked.path.startswith("/v1/kv1/") else 2
        start = "/v1/kv1/" if version == 1 else "/v1/secret/data/"
        data = SECRETS.get(asked.path.removeprefix(start))
        if data is None:
            return 404, {"errors": []}
        return 200, {"data": data if version == 1 else {"data": data, "metadata": {}}}

    def _google(self, asked: Asked) -> Answer:
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self.tokens:
            return 401, {"error": {"status": "UNAUTHENTICATED"}}
        if "/secrets/app/" not in asked.path:
            return 404, {"error": {"status": "NOT_FOUND"}}
        return 200, {"payload": {"data": base64.b64encode(GCP_SECRET.encode()).decode()}}

    def _azure(self, asked: Asked) -> Answer:
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self.tokens:
            return 401, {"error": {"code": "Unauthorized"}}
        name = asked.path.split("/")[2]
        return (200, {"value": AZURE_SECRET}) if name == "app" else (404, {"error": {}})

    def _aws(self, asked: Asked) -> Answer:
        target, given = asked.headers["x-amz-target"], json.loads(asked.body)
        if "Credential=AKIATEST" not in asked.headers.get("authorization", ""):
            return 403, {"__type": "UnrecognizedClientException", "message": CLIENT_SECRET}
        if target == "secretsmanager.GetSecretValue" and given["SecretId"] == "app":
            return 200, {"Name": "app", "SecretString": AWS_SECRET}
        if target == "AmazonSSM.GetParameter" and given["Name"] == "/app/key":
            return 200, {"Parameter": {"Name": "/app/key", "Value": AWS_PARAMETER}}
        return 400, {"__type": "ResourceNotFoundException", "message": "no"}


def jwt(claims: dict[str, Any]) -> str:
    """A token of three parts; nobody checks the last one."""
    parts = ({"alg": "RS256"}, claims, {"signature": "canary-signature"})
    texts = (base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
    return ".".join(texts)


def part(token: str, number: int) -> Any:
    """One part of a JSON Web Token."""
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


@contextmanager
def authority() -> Iterator[Authority]:
    """The server on a port of its own."""
    state = Authority()
    state.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            asked = Asked(
                method=self.command,
                path=parts.path,
                query={name: values[0] for name, values in parse_qs(parts.query).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length).decode(),
            )
            status, data = state.answer(asked)
            content = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            kind = "application/x-amz-json-1.1" if "x-amz-target" in asked.headers else ""
            self.send_header("content-type", kind or "application/json")
            if isinstance(data, dict) and "location" in data:
                self.send_header("location", data["location"])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _any  # noqa: N815 (the server calls them by these names)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, *about: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that gave up
                super().handle_error(*about)

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
