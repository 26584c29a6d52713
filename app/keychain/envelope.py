"""One sealed text: AES-256-GCM with a key of its own, which a key-encryption key wraps.

``cb1.<key id>.<wrapped data key>.<sealed content>``, the last two a nonce and a ciphertext in
base64url. Both ciphertexts are bound to what the text is about, so that one row's text is of no use
in another, and a rotation only wraps the data key again.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass

from app.engine.custody import SealError

FORMAT = "cb1"
KEY_BYTES = 32
_NONCE_BYTES = 12
_AGAIN = "store it again, or restore the database from a backup"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The parts of a sealed text."""

    key_id: str
    wrapped: bytes
    content: bytes

    def __str__(self) -> str:
        return f"{FORMAT}.{self.key_id}.{_text(self.wrapped)}.{_text(self.content)}"


def parse(sealed: str, about: str) -> Envelope:
    """The parts of *sealed*. Raises ``SealError`` where it is no sealed text."""
    parts = sealed.split(".")
    if len(parts) != 4 or parts[0] != FORMAT:
        raise SealError(
            f"what is stored for {about} is no sealed text",
            remedy=_AGAIN,
        )
    try:
        return Envelope(parts[1], _bytes(parts[2]), _bytes(parts[3]))
    except (ValueError, binascii.Error):
        raise SealError(
            f"what is stored for {about} is a damaged sealed text",
            remedy=_AGAIN,
        ) from None


def seal(key_id: str, key: bytes, plain: bytes, about: str) -> Envelope:
    """*plain* for *about*, under a new data key."""
    data_key = os.urandom(KEY_BYTES)
    wrapped = _encrypt(key, data_key, _wrapping(key_id, about))
    return Envelope(key_id, wrapped, _encrypt(data_key, plain, _content(about)))


def unseal(envelope: Envelope, key: bytes, about: str) -> bytes:
    """What was sealed for *about*. Raises ``SealError``."""
    return _decrypt(_data_key(envelope, key, about), envelope.content, _content(about), about)


def rewrap(envelope: Envelope, key: bytes, new: tuple[str, bytes], about: str) -> Envelope:
    """The same content under another key-encryption key (its id, the key). Raises ``SealError``."""
    data_key = _data_key(envelope, key, about)
    # Opened once, so that a rotation never carries damage on unseen.
    _decrypt(data_key, envelope.content, _content(about), about)
    new_id, new_key = new
    wrapped = _encrypt(new_key, data_key, _wrapping(new_id, about))
    return Envelope(new_id, wrapped, envelope.content)


def _data_key(envelope: Envelope, key: bytes, about: str) -> bytes:
    return _decrypt(key, envelope.wrapped, _wrapping(envelope.key_id, about), about)


def _wrapping(key_id: str, about: str) -> bytes:
    return f"{FORMAT} key {key_id} {about}".encode()


def _content(about: str) -> bytes:
    return f"{FORMAT} content {about}".encode()


def _encrypt(key: bytes, plain: bytes, about: bytes) -> bytes:
    # Imported late: a run without servers seldom seals anything.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def _decrypt(key: bytes, sealed: bytes, bound: bytes, about: str) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise SealError(
            f"{about} fails authentication: it was changed, moved from another row, or sealed "
            "with another key of the same id",
            remedy="store it again, or configure the key it was sealed with",
        ) from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
