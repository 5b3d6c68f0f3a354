"""What the doctor finds out about a store, and that nothing of it stays."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mstar.errors import MissingDependency, StorageError, StoreRefused
from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from mstar.storage.probe import probe
from mstar.storage.s3_checks import check_bucket
from tests.storage.meddler import SECRET
from tests.versitygw import VersityGW


class TooKind(MemoryStore):
    """Tells every writer that it won, after a moment in which the others ask, too."""

    def create(self, key: str, data: bytes) -> bool:
        time.sleep(0.01)
        self.put(key, data)
        return True


class Forgetful(MemoryStore):
    """Has the first version of everything for ever."""

    def put(self, key: str, data: bytes) -> None:
        super().create(key, data)


class Whole(MemoryStore):
    """Gives the whole object whatever range is asked for."""

    def open(self, key, *, start=0, length=None):
        return super().open(key)


class Hiding(MemoryStore):
    """Lists nothing."""

    def scan(self, prefix):
        return iter(())


class Undying(MemoryStore):
    """Lists what was deleted."""

    def delete(self, key: str) -> None:
        self.put(key, b"")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TooKind, "let 4 of 4 writers create one key"),
        (Forgetful, "old bytes after a write"),
        (Whole, "10 bytes when 5 of 10 were asked for"),
        (Hiding, "does not list a key"),
        (Undying, "after it was deleted"),
    ],
)
def test_a_store_that_breaks_a_promise_is_found_out(kind: type[MemoryStore], words: str):
    with pytest.raises(StorageError, match=words):
        probe(kind())


def test_writers_race_at_the_same_moment():
    """Each waits for the others inside ``create``: only writers that are there at once get any further."""

    class Meeting(MemoryStore):
        together = threading.Barrier(3)

        def create(self, key: str, data: bytes) -> bool:
            self.together.wait(120)
            return super().create(key, data)

    race = probe(Meeting(), writers=3, rounds=4)
    assert (race.writers, race.overlapping, len(race.winners)) == (3, 4, 4)
    assert "in 4 races of 3 writers for one key (4 with all requests under way at once)" in str(
        race
    )


def test_a_probe_leaves_no_folder(tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    store.put("steps/a", b"")
    probe(store)
    assert sorted(path.name for path in store.root.iterdir()) == ["steps"]


def doctor(store: str, **environment: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit code, findings by name, and everything printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mstarctl.main", "doctor", "--store", store, "-o", "json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return (
        done.returncode,
        {found["what"]: found for found in json.loads(done.stdout)},
        done.stdout + done.stderr,
    )


def test_the_doctor_does_not_make_a_store_that_is_not_there(tmp_path: Path):
    code, findings, _ = doctor(str(tmp_path / "new" / "store"))
    assert code in {0, MissingDependency.exit_code}
    assert findings["store"]["ok"]
    assert "exactly one won each" in findings["store"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_looks_at_credentials_endpoint_bucket_clock_and_uploads(
    real_server: VersityGW, real_store
):
    code, findings, printed = doctor(real_store.url, **real_server.environment)
    assert code in {0, MissingDependency.exit_code}
    assert findings["credentials"]["found"] == (
        "from the static key in the environment (AWS_ACCESS_KEY_ID)"
    )
    assert findings["endpoint"]["found"] == f"{real_server.endpoint}, region us-east-1"
    assert all(findings[what]["ok"] for what in ("bucket", "clock", "parts", "store"))
    assert real_server.environment["AWS_SECRET_ACCESS_KEY"] not in printed
    assert list(real_store.list("")) == []
    assert list(real_store.remnants()) == []


@pytest.mark.parametrize(
    ("store", "environment", "what", "words"),
    [
        ("s3://absent/x", {}, "bucket", "has no bucket 'absent'"),
        ("s3://runs/x", {"AWS_SECRET_ACCESS_KEY": SECRET}, "bucket", "does not accept"),
        ("s3://runs/x", {"AWS_ACCESS_KEY_ID": "nobody"}, "bucket", "does not accept"),
        (
            "s3://runs/x",
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn"},
            "credentials",
            "two identities at once",
        ),
        (
            "s3://runs/x",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "credentials",
            "no usable credentials",
        ),
    ],
)
def test_the_doctor_names_what_the_server_refuses(
    real_server: VersityGW, store: str, environment: dict[str, str], what: str, words: str
):
    code, findings, printed = doctor(store, **(real_server.environment | environment))
    assert code == StoreRefused.exit_code
    assert not findings[what]["ok"]
    assert words in findings[what]["advice"]
    assert SECRET not in printed
    assert real_server.environment["AWS_SECRET_ACCESS_KEY"] not in printed


def test_a_clock_that_differs_is_told(real_store, monkeypatch):
    real = time.time
    for ahead, wrong in ((0.0, False), (20.0, False), (-90.0, True)):
        monkeypatch.setattr("mstar.storage.s3_checks.time.time", lambda ahead=ahead: real() + ahead)
        clock = next(check for check in check_bucket(real_store.url) if check.what == "clock")
        assert (clock.error is not None) == wrong
        assert bool(clock.advice) == (ahead != 0)
    seconds, _, told = clock.found.partition(" s ")
    assert told == "behind the server's"
    assert abs(int(seconds) - 90) <= 5  # the server tells whole seconds, and takes some to answer
