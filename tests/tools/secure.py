"""Servers over TLS for the tests: HTTP/2 or HTTP/1.1, with certificates of an authority of their own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BEGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM text."""

    chain: str
    key: str


class Authority:
    """Signs certificates; its own is ``pem``."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("callboard test authority")
        certificate = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        signed = certificate.add_extension(identifier, critical=False).sign(
            self._key, hashes.SHA256()
        )
        self.pem = signed.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, name: str, *, password: bytes | None = None) -> Pair:
        """A certificate for 127.0.0.1 and localhost, or for a client of that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_name(name), self._name, key)
            .add_extension(names, critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encryption = (
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption()
        )
        return Pair(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            ).decode(),
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
    )


class SecureServer:
    """Answers each request with what it saw: protocol, path, body, connection, client certificate."""

    def __init__(self, folder: Path, authority: Authority, *, protocols: Sequence[str]) -> None:
        pair = authority.issue("server")
        (folder / "server.pem").write_text(pair.chain + pair.key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem")
        self._context.load_verify_locations(cadata=authority.pem)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.set_alpn_protocols(list(protocols))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.hung = threading.Event()
        self.stop = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(plain)
            self.connections += 1
            thread = threading.Thread(target=self._client, args=(plain, self.connections))
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        self.stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _client(self, plain: socket.socket, number: int) -> None:
        with suppress(OSError, h2.exceptions.ProtocolError):
            secure = self._context.wrap_socket(plain, server_side=True)
            self._sockets.append(secure)
            subject = _flat((secure.getpeercert() or {}).get("subject"))
            about = {"connection": number, "client": subject.get("commonName")}
            if secure.selected_alpn_protocol() == "h2":
                _Two(self, secure, about).serve()
            else:
                self._one(secure, about)

    def _one(self, secure: ssl.SSLSocket, about: dict[str, Any]) -> None:
        while head := _until_blank(secure):
            path = head.split()[1].decode()
            content = json.dumps({**about, "protocol": "HTTP/1.1", "path": path}).encode()
            secure.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                b"%d\r\n\r\n%s" % (len(content), content)
            )


def _flat(subject: Any) -> dict[str, str]:
    return dict(pair for one in subject or () for pair in one)


def _until_blank(sock: ssl.SSLSocket) -> bytes:
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        piece = sock.recv(65_536)
        if not piece:
            return b""
        text += piece
    return text


class _Two:
    """One connection of HTTP/2."""

    def __init__(self, server: SecureServer, sock: ssl.SSLSocket, about: dict[str, Any]) -> None:
        self._server = server
        self._socket = sock
        self._about = about
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._asked: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        #: How many requests were under way at once, at the most.
        self._waiting: dict[int, bytes] = {}

    def serve(self) -> None:
        self._state.initiate_connection()
        self._flush()
        while data := self._socket.recv(65_536):
            for event in self._state.receive_data(data):
                self._on(event)
            self._continue()
            self._flush()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._asked[event.stream_id] = {
                _text(name): _text(value) for name, value in event.headers or []
            }
            self._bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[event.stream_id] += event.data or b""
            self._state.acknowledge_received_data(
                event.flow_controlled_length or 0, event.stream_id
            )
        elif isinstance(event, h2.events.StreamEnded):
            self._answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._waiting.pop(event.stream_id, None)

    def _answer(self, stream: int) -> None:
        path = self._asked[stream][":path"]
        if path == "/hang":
            self._server.hung.set()
            return
        if path == "/half":
            self._state.send_headers(stream, [(":status", "200"), ("content-type", "text/plain")])
            self._state.send_data(stream, b"x" * 2000)
            return
        if path.startswith("/large/"):
            content, kind = b"x" * int(path.removeprefix("/large/")), "text/plain"
        else:
            found = {
                **self._about,
                "protocol": "HTTP/2",
                "path": path,
                "body": self._bodies[stream].decode(),
                "headers": self._asked[stream],
            }
            content, kind = json.dumps(found).encode(), "application/json"
        self._state.send_headers(stream, [(":status", "200"), ("content-type", kind)])
        self._waiting[stream] = content

    def _continue(self) -> None:
        """Send as much as the client's windows allow."""
        for stream, content in list(self._waiting.items()):
            rest = content
            while rest:
                window = self._state.local_flow_control_window(stream)
                size = min(window, self._state.max_outbound_frame_size, len(rest))
                if size <= 0:
                    break
                self._state.send_data(stream, rest[:size])
                rest = rest[size:]
            if rest:
                self._waiting[stream] = rest
            else:
                del self._waiting[stream]
                self._state.end_stream(stream)

    def _flush(self) -> None:
        self._socket.sendall(self._state.data_to_send())


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


@contextmanager
def serving(
    folder: Path, authority: Authority, *, protocols: Sequence[str] = ("h2", "http/1.1")
) -> Iterator[SecureServer]:
    """A server of these protocols, its best first."""
    server = SecureServer(folder, authority, protocols=protocols)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
