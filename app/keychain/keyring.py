"""The keys that seal what the database keeps in confidence: the first seals, all of them open."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from app.engine.custody import SealError
from app.keychain.envelope import KEY_BYTES, parse, rewrap, seal, unseal

Keys = Mapping[str, bytes]


class Keyring:
    """Keys of 32 bytes by id, in order; see ``engine.custody.Sealer``.

    A key that is not among them is looked for once more with *again*: a rotation may have added it
    while this process runs.
    """

    def __init__(self, keys: Keys, again: Callable[[], Keys] | None = None) -> None:
        self._keys = dict(keys)
        self._again = again

    @property
    def key_ids(self) -> frozenset[str]:
        return frozenset(self._keys)

    @property
    def sealing(self) -> str:
        found = next(iter(self._keys), None)
        if found is None:
            raise SealError(
                "no encryption key is configured, so nothing can be kept in confidence",
                remedy="set CALLBOARD_ENCRYPTION_KEYS on every server, such as "
                "'main=<what openssl rand -base64 32 prints>'",
            )
        return found

    def seal(self, plain: bytes, about: str) -> str:
        key_id = self.sealing
        return str(seal(key_id, self._keys[key_id], plain, about))

    def open(self, sealed: str, about: str) -> bytes:
        envelope = parse(sealed, about)
        return unseal(envelope, self._key(envelope.key_id, about), about)

    def key_id_of(self, sealed: str) -> str:
        return parse(sealed, "the text").key_id

    def renew(self, sealed: str, about: str) -> str:
        envelope = parse(sealed, about)
        key_id = self.sealing
        if envelope.key_id == key_id:
            return sealed
        old = self._key(envelope.key_id, about)
        return str(rewrap(envelope, old, (key_id, self._keys[key_id]), about))

    def _key(self, key_id: str, about: str) -> bytes:
        if key_id not in self._keys and self._again is not None:
            self._keys = dict(self._again())
        key = self._keys.get(key_id)
        if key is None:
            raise SealError(
                f"{about} was sealed with key {key_id!r}, which is not configured",
                remedy="add that key to CALLBOARD_ENCRYPTION_KEYS",
            )
        return key


def ephemeral() -> Keyring:
    """A key ring of one new key, for what does not outlive this process."""
    return Keyring({"ephemeral": os.urandom(KEY_BYTES)})
