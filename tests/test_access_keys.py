"""The file of API keys, its commands, and what a running service makes of it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bento import access, keys
from bento.access import Keyring
from bento.errors import HttpError
from recommender.errors import BadInput

KEY = re.compile(r"rsk_[A-Za-z0-9_-]{43}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request looks at the file."""
    monkeypatch.setattr(access, "LOOK_S", 0.0)


def recserve(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "serving.cli", "keys", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def status(ring: Keyring, key: str, scope: str = "recommend") -> int:
    """As which the ring answers the key."""
    try:
        access.permit(ring.find(bearer(key)), scope)
    except HttpError as error:
        return error.status
    return 200


def test_a_key_is_shown_once_and_its_hash_alone_is_kept(file: Path) -> None:
    printed = recserve("add", "shop", "--scope", "recommend", "--rate", "5", "--keys", str(file))
    key = printed.strip()
    assert KEY.fullmatch(key)
    text = file.read_text()
    assert key not in text and key.removeprefix("rsk_") not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(text)["schema"] == 1
    assert [p.name for p in file.parent.iterdir()] == ["keys.json"]  # nothing is left beside it
    listed = recserve("list", "--keys", str(file), "--json")
    (row,) = json.loads(listed)
    assert (row["name"], row["scopes"], row["rate"]) == ("shop", ["recommend"], 5.0)
    assert "sha256" not in row
    assert "shop" in recserve("list", "--keys", str(file))
    assert Keyring(file).find(bearer(key)).name == "shop"


def test_what_cannot_be_a_key_is_refused_and_changes_nothing(file: Path) -> None:
    recserve("add", "shop", "--scope", "events", "--keys", str(file))
    before = file.read_bytes()
    for arguments, word in (
        (("shop", "--scope", "events"), "another name"),
        (("a b", "--scope", "events"), "Names are"),
        (("other", "--scope", "everything"), "scopes are"),
        (("other", "--scope", "events", "--rate", "0"), "rate"),
        (("other", "--scope", "events", "--rate", "inf"), "rate"),
        (("other", "--scope", "events", "--expires", "soon"), "soon"),
        (("other",), "--scope"),
    ):
        assert word in recserve("add", *arguments, "--keys", str(file), code=2)
    assert "no key 'nobody'" in recserve("revoke", "nobody", "--keys", str(file), code=1)
    assert file.read_bytes() == before


def test_two_who_add_at_once_both_find_their_key(file: Path) -> None:
    names = [f"key-{number}" for number in range(20)]
    threads = [threading.Thread(target=keys.add, args=(file, n, ["events"])) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in keys.read(file)) == sorted(names)


def test_a_scope_opens_what_it_names_and_admin_everything(file: Path) -> None:
    shop = keys.add(file, "shop", ["recommend", "events"])
    boss = keys.add(file, "boss", ["admin"])
    ring = Keyring(file)
    assert [status(ring, shop, scope) for scope in keys.SCOPES] == [200, 200, 403, 403]
    assert [status(ring, boss, scope) for scope in keys.SCOPES] == [200, 200, 200, 200]
    with pytest.raises(HttpError, match="no scope 'admin'") as refused:
        access.permit(ring.find(bearer(shop)), "admin")
    assert "recommend, events" in refused.value.remedy


def test_only_a_whole_known_key_after_bearer_is_one(file: Path) -> None:
    key = keys.add(file, "shop", ["recommend"])
    ring = Keyring(file)
    hashed = json.loads(file.read_text())["keys"][0]["sha256"]
    assert ring.find(b"bEARER  " + key.encode() + b" ").name == "shop"
    for wrong in (
        None, b"", b"Bearer", b"Bearer ", bearer(key[:-1]), bearer(key + "x"), bearer(hashed),
        bearer("x" * 60_000), b"Basic " + key.encode(), key.encode(), b"Bearer \xff\xfe",
    ):  # fmt: skip
        with pytest.raises(HttpError) as refused:
            ring.find(wrong)
        assert refused.value.status == 401
        assert (b"www-authenticate", b'Bearer realm="recserve"') in refused.value.headers
        assert key not in str(refused.value)


def test_a_key_ends_when_it_expires(file: Path) -> None:
    now = datetime.now(UTC)
    old = keys.add(file, "old", ["recommend"], expires=now - timedelta(seconds=1))
    new = keys.add(file, "new", ["recommend"], expires=now + timedelta(hours=1))
    ring = Keyring(file)
    assert (status(ring, old), status(ring, new)) == (401, 200)
    assert "(expired)" in recserve("list", "--keys", str(file))


def test_a_rotation_has_both_keys_valid_and_then_the_new_one_alone(
    file: Path, at_once: None
) -> None:
    first = keys.add(file, "shop-1", ["recommend"])
    ring = Keyring(file)
    second = keys.add(file, "shop-2", ["recommend"])
    assert (status(ring, first), status(ring, second)) == (200, 200)
    recserve("revoke", "shop-1", "--keys", str(file))
    assert (status(ring, first), status(ring, second)) == (401, 200)


def test_a_mounted_secret_is_followed_through_its_link(tmp_path: Path, at_once: None) -> None:
    """Kubernetes exchanges a folder behind `..data`."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = keys.add(tmp_path / "one" / "keys.json", "first", ["recommend"])
    second = keys.add(tmp_path / "two" / "keys.json", "second", ["recommend"])
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    ring = Keyring(tmp_path / "keys.json")
    assert (status(ring, first), status(ring, second)) == (200, 401)
    (tmp_path / ".next").symlink_to("two")
    (tmp_path / ".next").replace(tmp_path / "..data")
    assert (status(ring, first), status(ring, second)) == (401, 200)


@pytest.mark.parametrize("how", ["broken", "gone", "newer", "folder"])
def test_a_file_that_cannot_be_used_keeps_the_keys_of_before_and_is_said_once(
    file: Path, at_once: None, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    key = keys.add(file, "shop", ["recommend"])
    ring = Keyring(file)
    whole = file.read_bytes()
    if how in ("gone", "folder"):
        file.unlink()
        if how == "folder":
            file.mkdir()
    else:
        file.write_bytes(whole[:50] if how == "broken" else whole.replace(b": 1,", b": 99,"))
    assert [status(ring, key) for _ in range(5)] == [200] * 5
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "keys of before" in said.getMessage()
    if how == "folder":
        file.rmdir()
    file.write_bytes(whole)
    keys.revoke(file, "shop")
    assert status(ring, key) == 401


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "truncated"),
        ("[]", "Expected"),
        ('{"schema": 2, "keys": []}', "schema 2, not 1"),
        ('{"schema": 1, "keys": [{"name": "a"}]}', "missing required"),
        ('{"schema": 1, "keys": [], "more": 1}', "unknown field"),
    ],
)
def test_a_service_does_not_start_with_a_file_that_is_none_of_keys(
    file: Path, content: str, why: str
) -> None:
    file.write_text(content)
    with pytest.raises(BadInput, match=why) as refused:
        Keyring(file)
    assert str(file) in refused.value.what


def test_the_file_is_looked_at_twice_a_second_and_no_more(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.add(file, "shop", ["recommend"])
    ring = Keyring(file)
    keys.revoke(file, "shop")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.1)
    assert status(ring, key) == 200
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.6)
    assert status(ring, key) == 401


def test_a_full_disk_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.add(file, "shop", ["recommend"])
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.add(file, "other", ["recommend"])
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["keys.json"]
