"""Storage against bare boto3 with the same settings: ``python -m bench.storage``.

One large file and many small ones go up and down, by ``upload_file``/``download_file`` and by ours, in turns, against a
server on this machine: VersityGW if it is to be found, else moto. Ours includes the sha256 that goes into the
manifest, and its check on the way back. The server takes its share of the same cores, so hashing is not free here.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest
from mstar.storage.parallel import LARGE, PARALLEL
from mstar.storage.reading import materialise
from mstar.storage.s3 import S3Store
from mstar.storage.s3_client import connect
from mstar.storage.s3_parts import PART
from tests.versitygw import VersityGW, free_port, program

MIB = 1 << 20
LARGE_MIB = 256
SMALL_FILES, SMALL_BYTES = 200, 64 << 10
ROUNDS = 7
SAME = TransferConfig(multipart_threshold=LARGE, multipart_chunksize=PART, max_concurrency=PARALLEL)
BUCKET = "bench"
Ways = Mapping[str, Callable[[], object]]


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server with the bucket, named, and the environment that leads to it."""
    found = program()
    with real(found, folder) if found else moto() as (name, environment):
        os.environ |= environment | {"AWS_EC2_METADATA_DISABLED": "true"}
        connect().create_bucket(Bucket=BUCKET)
        yield name


@contextmanager
def real(found: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with VersityGW(found, folder / "server") as running:
        yield "VersityGW", running.environment


@contextmanager
def moto() -> Iterator[tuple[str, dict[str, str]]]:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = "import sys; from moto.server import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            time.sleep(0.2)
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).close()  # noqa: S310 - ours
            except OSError:
                continue
            break
        yield (
            "moto (no VersityGW here)",
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
    finally:
        process.terminate()
        process.wait(10)


def in_turns(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round that does not count; the order turns round by round."""
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            ways[name]()
            if turn:
                times[name].append(time.perf_counter() - begin)
    return times


def compared(times: Mapping[str, list[float]], mib: float) -> dict[str, Any]:
    """MiB/s of each way at its median, and how ours compares with bare within each round."""
    ratios = sorted(bare / ours for bare, ours in zip(times["bare"], times["ours"], strict=True))
    return {
        "MiB/s": {name: round(mib / statistics.median(each)) for name, each in times.items()},
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


class Transfers:
    """The same files, up and down, bare and ours."""

    def __init__(self, folder: Path, store: S3Store, count: int, size: int) -> None:
        self.source, self.target = folder / "source", folder / "target"
        self.store, self.client = store, connect()
        self.source.mkdir()
        self.target.mkdir()
        self.names = [f"{number:05d}" for number in range(count)]
        self.attempts = 0
        for name in self.names:
            with (self.source / name).open("wb") as file:
                for _ in range(max(1, size // MIB)):
                    file.write(os.urandom(min(size, MIB)))
        self.stored = self.ours_up()

    def bare_up(self, name: str) -> None:
        self.client.upload_file(str(self.source / name), BUCKET, f"bare/{name}", Config=SAME)

    def bare_down_and_hash(self) -> None:
        """The first file without our help, and its sha256 in a pass of its own."""
        self.bare_down(self.names[0])
        hashlib.sha256((self.target / "bare" / self.names[0]).read_bytes())

    def bare_down(self, name: str) -> None:
        target = self.target / "bare" / name
        target.unlink(missing_ok=True)
        target.parent.mkdir(exist_ok=True)
        self.client.download_file(BUCKET, f"bare/{name}", str(target), Config=SAME)

    def ours_up(self) -> Manifest:
        """An attempt at a step: all parts stored and hashed, and committed."""
        self.attempts += 1
        identity = hashlib.sha256(b"%d" % self.attempts).hexdigest()
        with ArtifactWriter(self.store, identity, "1") as writer:
            writer.add_folder("", self.source)
            return writer.commit().manifest

    def ours_down(self) -> None:
        """All parts in a local folder, each checked against its size and sha256."""
        scratch = self.target / "ours"
        for path in sorted(scratch.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        materialise(self.store, self.stored, "", scratch)

    def up(self) -> dict[str, Callable[[], object]]:
        return {"bare": lambda: [*map(self.bare_up, self.names)], "ours": self.ours_up}

    def down(self) -> dict[str, Callable[[], object]]:
        return {"bare": lambda: [*map(self.bare_down, self.names)], "ours": self.ours_down}

    def threads(self, each: Callable[[str], None]) -> Callable[[], object]:
        """The bare way for a patient programmer: as many files at once as ours."""
        return lambda: [*ThreadPoolExecutor(PARALLEL).map(each, self.names)]


def measure(large_mib: int, rounds: int) -> dict[str, Any]:
    """All four comparisons."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as name:
        found: dict[str, Any] = {"benchmark": "storage", "server": name, "wanted": 0.9}
        for what, count, size in (
            ("large", 1, large_mib * MIB),
            ("small", SMALL_FILES, SMALL_BYTES),
        ):
            place = Path(folder) / what
            place.mkdir()
            store = S3Store(f"s3://{BUCKET}/{what}")
            transfers = Transfers(place, store, count, size)
            up, down = transfers.up(), transfers.down()
            if count > 1:
                up["bare, 8 threads"] = transfers.threads(transfers.bare_up)
                down["bare, 8 threads"] = transfers.threads(transfers.bare_down)
            else:
                path = transfers.source / transfers.names[0]
                key = transfers.stored.parts[0].key
                up["ours without sha256"] = lambda: store.upload("plain", path)  # noqa: B023 - called in this turn
                down["bare, then sha256"] = transfers.bare_down_and_hash
                del key
            mib = count * size / MIB
            found[f"{what} up"] = compared(in_turns(up, rounds), mib)
            found[f"{what} down"] = compared(in_turns(down, rounds), mib)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large-mib", type=int, default=LARGE_MIB)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(json.dumps(measure(given.large_mib, given.rounds), indent=1))
