"""Where the keys come from: the environment, the file of the home, and nowhere."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.engine.custody import SealError
from app.errors import StartupError
from app.keychain.keys import FILE, add_key, fingerprint, keyring, single_key
from app.settings import Settings, load

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
TEXT, OTHER_TEXT = (base64.b64encode(key).decode() for key in (KEY, OTHER))


def settings(home: Path, **environment: str) -> Settings:
    return load({**environment}, home=home).settings


def test_the_first_key_seals_and_all_open(tmp_path: Path) -> None:
    before = keyring(settings(tmp_path, CALLBOARD_ENCRYPTION_KEYS=f"old={TEXT}"))
    sealed = before.seal(b"x", "a")
    after = keyring(settings(tmp_path, CALLBOARD_ENCRYPTION_KEYS=f"new={OTHER_TEXT}, old={TEXT}"))
    assert after.open(sealed, "a") == b"x"
    assert after.sealing == "new"
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        pytest.param(TEXT, KEY, id="base64"),
        pytest.param(TEXT.rstrip("="), KEY, id="base64 without padding"),
        pytest.param(base64.urlsafe_b64encode(b"\xff" * 32).decode(), b"\xff" * 32, id="base64url"),
        pytest.param(KEY.hex(), KEY, id="hex"),
    ],
)
def test_a_single_key(text: str, key: bytes, tmp_path: Path) -> None:
    assert single_key(text) == key
    ring = keyring(settings(tmp_path, NOETL_ENCRYPTION_KEY=text))
    assert ring.sealing == fingerprint(key)


def test_a_passphrase_is_the_same_key_on_every_start(tmp_path: Path) -> None:
    phrase = {"NOETL_ENCRYPTION_KEY": "correct horse battery staple"}
    sealed = keyring(settings(tmp_path, **phrase)).seal(b"x", "a")
    assert keyring(settings(tmp_path / "elsewhere", **phrase)).open(sealed, "a") == b"x"
    other = keyring(settings(tmp_path, NOETL_ENCRYPTION_KEY="correct horse battery stable"))
    # Another phrase is another id: it is missed by name, not met as damage.
    with pytest.raises(SealError, match="which is not configured"):
        other.open(sealed, "a")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"NOETL_ENCRYPTION_KEY": "tooshort123"}, "16 characters"),
        ({"CALLBOARD_ENCRYPTION_KEYS": "hunter2hunter2"}, "entry 1"),
        ({"CALLBOARD_ENCRYPTION_KEYS": f"a={TEXT},b=c2hvcnQ="}, "entry 2"),
        ({"CALLBOARD_ENCRYPTION_KEYS": f"a.b={TEXT}"}, "entry 1"),
        ({"CALLBOARD_ENCRYPTION_KEYS": f"a={TEXT},a={OTHER_TEXT}"}, "two keys with the id 'a'"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(
    environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(StartupError, match=told) as raised:
        keyring(settings(tmp_path, **environment))
    assert all(secret not in str(raised.value) for secret in (TEXT, "hunter2", "tooshort123"))


def test_the_file_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sealed = keyring(settings(home)).seal(b"x", "a")
    file = home / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert keyring(settings(home)).open(sealed, "a") == b"x"
    assert file.read_text() == text


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keyring(settings(tmp_path))
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(StartupError, match=r"may be read by others .*chmod 600"):
        keyring(settings(tmp_path))


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).touch(mode=0o600)
    with pytest.raises(StartupError, match="holds no key"):
        keyring(settings(tmp_path))


def test_with_another_database_no_key_is_made(tmp_path: Path) -> None:
    elsewhere = {"DATABASE_URL": "postgresql://db/x"}
    assert keyring(settings(tmp_path, **elsewhere)).key_ids == frozenset()
    assert not (tmp_path / FILE).exists()
    ours = keyring(settings(tmp_path))
    # The processes of `callboard up` are told of their database like of any other.
    assert keyring(settings(tmp_path, **elsewhere)).key_ids == ours.key_ids


def test_keys_of_the_environment_go_before_those_of_the_file(tmp_path: Path) -> None:
    filed = keyring(settings(tmp_path))
    sealed = filed.seal(b"x", "a")
    ring = keyring(settings(tmp_path, CALLBOARD_ENCRYPTION_KEYS=f"env={TEXT}"))
    assert ring.sealing == "env"
    assert ring.open(sealed, "a") == b"x"
    with pytest.raises(StartupError, match="another one in"):
        keyring(settings(tmp_path, CALLBOARD_ENCRYPTION_KEYS=f"{filed.sealing}={TEXT}"))


MAKE = """
import sys
from pathlib import Path
from app.keychain.keys import keyring
from app.settings import load
sys.stdin.readline()
print(keyring(load({}, home=Path(sys.argv[1])).settings).sealing, flush=True)
"""


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE, str(tmp_path / "home")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        answers = {child.communicate(timeout=30)[0] for child in children}
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert len(answers) == 1
    assert answers != {""}


def test_added_keys_are_all_kept(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    first = keyring(chosen)
    sealed = first.seal(b"x", "a")
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: add_key(chosen), range(8)))
    ring = keyring(chosen)
    assert ring.key_ids == {first.sealing, *added}
    assert ring.sealing in added
    assert ring.open(sealed, "a") == b"x"
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, f"{FILE}.lock"]


def test_a_running_process_finds_an_added_key(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    running = keyring(chosen)
    add_key(chosen)
    sealed = keyring(chosen).seal(b"x", "a")
    assert running.open(sealed, "a") == b"x"


def test_no_key_is_added_beside_those_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="in the environment"):
        add_key(settings(tmp_path, CALLBOARD_ENCRYPTION_KEYS=f"a={TEXT}"))
