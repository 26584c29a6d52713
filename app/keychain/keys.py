"""Where the keys of this installation are: in the environment, and in a file of the home.

``CALLBOARD_ENCRYPTION_KEYS``, then ``NOETL_ENCRYPTION_KEY``, then ``<home>/encryption.keys``: what
comes first seals, all of them open. The file is made on the first start of an installation whose
database is our own; with another database a key that only this machine knows would lock everybody
else out, so nothing is sealed until one is configured.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

from app.errors import StartupError
from app.keychain.envelope import KEY_BYTES
from app.keychain.keyring import Keyring
from app.settings import Settings

FILE = "encryption.keys"
SHORTEST_PASSPHRASE = 16
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SALT = b"callboard encryption key"
_HEAD = "# Seals the credentials in the database: without these keys they cannot be read again.\n"
_MAKE = "make one with 'openssl rand -base64 32'"


def keyring(settings: Settings) -> Keyring:
    """The keys that *settings* name. Raises ``StartupError`` where one of them is no key.

    Empty where there are none, and none may be made.
    """
    file = settings.home / FILE
    if not _configured(settings) and settings.external_database_url is None:
        _make(file)
    return Keyring(_all(settings), partial(_all, settings))


def add_key(settings: Settings) -> str:
    """Make a new key the first one of the key file; its id. Raises ``StartupError``.

    Processes that run find it when they meet what it sealed; they seal with it once started again.
    """
    if _configured(settings):
        raise StartupError(
            "the keys are in the environment, where only you can add one",
            remedy="put a new key first in CALLBOARD_ENCRYPTION_KEYS and keep the others; "
            "then rotate without a new one",
        )
    file = settings.home / FILE
    key = secrets.token_bytes(KEY_BYTES)
    with _locked(file):
        _write(file, {fingerprint(key): key, **_filed(file)})
    return fingerprint(key)


def _configured(settings: Settings) -> dict[str, bytes]:
    """The keys of the environment."""
    keys = _listed(settings.encryption_keys, "CALLBOARD_ENCRYPTION_KEYS")
    if settings.encryption_key:
        key = single_key(settings.encryption_key)
        keys.setdefault(fingerprint(key), key)
    return keys


def _all(settings: Settings) -> dict[str, bytes]:
    file = settings.home / FILE
    keys = _configured(settings)
    for key_id, key in _filed(file).items():
        if keys.setdefault(key_id, key) != key:
            raise StartupError(
                f"key {key_id!r} is another one in {file} than in the environment",
                remedy="give one of the two another id",
            )
    return keys


def fingerprint(key: bytes) -> str:
    """An id for a key that has none: another key is another id, so that a lost one is noticed."""
    return "k" + hashlib.sha256(b"callboard key id" + key).hexdigest()[:12]


@lru_cache(maxsize=4)
def single_key(text: str) -> bytes:
    """The key in *text*: 32 bytes in hex or base64, else a passphrase, stretched by scrypt."""
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    if (key := _decoded(text)) is not None:
        return key
    if len(text) < SHORTEST_PASSPHRASE:
        raise StartupError(
            "NOETL_ENCRYPTION_KEY is neither 32 bytes in base64 or hex nor a passphrase of "
            f"{SHORTEST_PASSPHRASE} characters",
            remedy=_MAKE,
        )
    return hashlib.scrypt(text.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=KEY_BYTES)


def _listed(text: str, source: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for place, part in enumerate(re.split(r"[,\n]", text), 1):
        if not part.strip() or part.lstrip().startswith("#"):
            continue
        key_id, _, encoded = part.strip().partition("=")
        key = _decoded(encoded)
        # The part itself is not told: it may be a key without an id.
        if key is None or not _ID.fullmatch(key_id):
            raise StartupError(
                f"entry {place} of {source} is not 'id=key' with 32 bytes in base64",
                remedy=f"{_MAKE}, and an id of letters, digits, '-' and '_'",
            )
        if keys.setdefault(key_id, key) != key:
            raise StartupError(
                f"{source} has two keys with the id {key_id!r}", remedy="give each an id of its own"
            )
    return keys


def _decoded(text: str) -> bytes | None:
    text = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None


# ---------------------------------------------------------------------- the file
def _filed(file: Path) -> dict[str, bytes]:
    try:
        mode = file.stat().st_mode & 0o777
        if mode & 0o077:
            raise StartupError(
                f"{file} may be read by others (mode {mode:04o})", remedy=f"run 'chmod 600 {file}'"
            )
        text = file.read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise StartupError(f"{file} cannot be read: {type(exc).__name__}") from None
    keys = _listed(text, str(file))
    if not keys:
        raise StartupError(
            f"{file} holds no key", remedy="restore it from a backup; a new one opens nothing"
        )
    return keys


def _make(file: Path) -> None:
    """Make the file with a new key, unless it is there. Of processes that try at once, one does."""
    if file.exists():
        return
    key = secrets.token_bytes(KEY_BYTES)
    with _locked(file):
        # Whoever was here first made the key of all.
        if not file.exists():
            _write(file, {fingerprint(key): key})


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go where it dies. Makes the folder."""
    # As root the servers run as another user, which has to get to its own folder in there.
    file.parent.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    fd = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(file: Path, keys: Mapping[str, bytes]) -> None:
    """Replace *file*; after a power cut it is the old one or the new one. Only while it is locked."""
    lines = [f"{key_id}={base64.b64encode(key).decode()}\n" for key_id, key in keys.items()]
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as out:
        out.write("".join([_HEAD, *lines]))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
