"""A sealed text: what opens it, and everything that does not."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.engine.custody import SealError
from app.keychain.envelope import Envelope, parse
from app.keychain.keyring import Keyring, ephemeral

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLAIN = b'{"password": "correct horse"}'


def test_what_is_sealed_comes_back_for_the_same_purpose_only() -> None:
    ring = Keyring({"old": OLD})
    sealed = ring.seal(PLAIN, "credential:pg")
    assert ring.open(sealed, "credential:pg") == PLAIN
    assert ring.key_id_of(sealed) == "old"
    with pytest.raises(SealError, match="credential:other fails authentication"):
        ring.open(sealed, "credential:other")
    with pytest.raises(SealError, match="token:pg fails"):
        ring.open(sealed, "token:pg")


def test_two_seals_of_the_same_have_nothing_in_common() -> None:
    ring = ephemeral()
    one, two = (ring.seal(PLAIN, "credential:pg").split(".")[2:] for _ in range(2))
    assert set(one).isdisjoint(two)


def test_nothing_of_the_content_shows_in_the_text() -> None:
    sealed = ephemeral().seal(PLAIN, "credential:pg")
    decoded = b"".join(base64.urlsafe_b64decode(part + "==") for part in sealed.split(".")[2:])
    assert b"horse" not in sealed.encode() + decoded


def _parts(sealed: str) -> list[str]:
    return sealed.split(".")


def _flip(sealed: str, part: int, place: int) -> str:
    parts = _parts(sealed)
    data = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    data[place] ^= 1
    parts[part] = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    return ".".join(parts)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda sealed: _flip(sealed, 2, 0), id="a bit of the data key's nonce"),
        pytest.param(lambda sealed: _flip(sealed, 2, -1), id="a bit of the data key's tag"),
        pytest.param(lambda sealed: _flip(sealed, 3, 0), id="a bit of the content's nonce"),
        pytest.param(lambda sealed: _flip(sealed, 3, 20), id="a bit of the content"),
        pytest.param(lambda sealed: sealed.replace(".old.", ".twin."), id="another key's id"),
        pytest.param(lambda sealed: sealed[:-24], id="cut off"),
        pytest.param(lambda sealed: ".".join([*_parts(sealed)[:3], "AAAA"]), id="too short"),
        pytest.param(lambda sealed: sealed + "*", id="no base64"),
        pytest.param(lambda sealed: sealed.replace("cb1", "cb9"), id="another format"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: '{"password": "x"}', id="plaintext"),
    ],
)
def test_what_was_changed_does_not_open(change: Callable[[str], str]) -> None:
    ring = Keyring({"old": OLD, "twin": OLD})
    sealed = ring.seal(PLAIN, "credential:pg")
    with pytest.raises(SealError, match="credential:pg") as raised:
        ring.open(change(sealed), "credential:pg")
    assert "horse" not in repr(raised.value)


def test_parts_of_two_texts_do_not_go_together() -> None:
    ring = Keyring({"old": OLD})
    one, two = (_parts(ring.seal(PLAIN, "credential:pg")) for _ in range(2))
    with pytest.raises(SealError, match="fails authentication"):
        ring.open(".".join([*one[:3], two[3]]), "credential:pg")


def test_renewal_wraps_the_data_key_and_leaves_the_content_alone() -> None:
    sealed = Keyring({"old": OLD}).seal(PLAIN, "credential:pg")
    ring = Keyring({"new": NEW, "old": OLD})
    renewed = ring.renew(sealed, "credential:pg")
    assert parse(renewed, "").key_id == "new"
    assert parse(renewed, "").content == parse(sealed, "").content
    assert Keyring({"new": NEW}).open(renewed, "credential:pg") == PLAIN
    assert ring.renew(renewed, "credential:pg") is renewed


def test_renewal_refuses_what_does_not_open() -> None:
    sealed = Keyring({"old": OLD}).seal(PLAIN, "credential:pg")
    ring = Keyring({"new": NEW, "old": OLD})
    with pytest.raises(SealError, match="fails authentication"):
        ring.renew(_flip(sealed, 3, 20), "credential:pg")
    with pytest.raises(SealError, match="fails authentication"):
        ring.renew(sealed, "credential:other")


def test_a_missing_key_is_named() -> None:
    sealed = Keyring({"old": OLD}).seal(PLAIN, "credential:pg")
    with pytest.raises(SealError, match="sealed with key 'old', which is not configured"):
        Keyring({"new": NEW}).open(sealed, "credential:pg")


def test_a_key_added_meanwhile_is_found() -> None:
    keys = {"old": OLD}
    ring = Keyring(keys, lambda: keys)
    sealed = Keyring({"new": NEW}).seal(PLAIN, "credential:pg")
    with pytest.raises(SealError, match="'new'"):
        ring.open(sealed, "credential:pg")
    keys = {"new": NEW, "old": OLD}
    assert ring.open(sealed, "credential:pg") == PLAIN
    assert ring.sealing == "new"


def test_without_keys_nothing_is_sealed() -> None:
    with pytest.raises(SealError, match="no encryption key is configured"):
        Keyring({}).seal(PLAIN, "credential:pg")


def test_keys_show_nowhere() -> None:
    ring = Keyring({"old": b"k" * 32})
    assert "kkkk" not in repr(ring) + str(ring)


def test_the_content_is_bound_by_itself_too() -> None:
    """As the format is written down: whoever can wrap a data key cannot pass its content on."""
    sealed = Keyring({"old": OLD}).seal(PLAIN, "credential:a")
    wrapped, content = (base64.urlsafe_b64decode(part + "==") for part in _parts(sealed)[2:])
    data_key = AESGCM(OLD).decrypt(wrapped[:12], wrapped[12:], b"cb1 key old credential:a")
    bound = b"cb1 content credential:a"
    assert AESGCM(data_key).decrypt(content[:12], content[12:], bound) == PLAIN
    other = bytes(12) + AESGCM(OLD).encrypt(bytes(12), data_key, b"cb1 key old credential:b")
    moved = str(Envelope("old", other, content))
    with pytest.raises(SealError, match="credential:b fails authentication"):
        Keyring({"old": OLD}).open(moved, "credential:b")
