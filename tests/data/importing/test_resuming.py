"""An import that was stopped goes on, several processes do what one does, and nothing half done is ever visible."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mstar.data.importing import gallery as galleries
from mstar.data.importing import whole
from mstar.data.importing.gallery import Gallery
from mstar.data.importing.mathv360k import find_files, read_mathv360k
from mstar.data.importing.records import Asked, Shares
from mstar.data.importing.whole import import_data
from mstar.data.importing.writing import write_shard
from mstar.errors import ConflictError, StorageError, WorkerLost
from tests.data.importing.published import mathv360k, png

SHARES = Shares(test=9, validation=6)


def quiet(*_):
    pass


def start(folder, out, tell=quiet, workers=1):
    asked = Asked(identity={}, shares=SHARES, workers=workers)
    return import_data(read_mathv360k(*find_files(folder)), out, asked, tell)


def tables(out):
    return {file.name: pq.read_table(file) for file in sorted(out.glob("*.parquet"))}


class Stop(Exception):
    pass


def stop_at(unit, count):
    def tell(done, total, what):
        if what == unit and done >= count:
            raise Stop

    return tell


@pytest.mark.parametrize(("unit", "count"), [("images", 8), ("images", 16), ("rows written", 9)])
def test_an_import_that_was_stopped_goes_on_and_gives_the_same(tmp_path, unit, count):
    folder = mathv360k(tmp_path / "in")
    with pytest.raises(Stop):
        start(folder, tmp_path / "out", stop_at(unit, count))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".import"]
    report = start(folder, tmp_path / "out")
    assert report.resumed >= count if unit == "images" else report.resumed == 20
    start(folder, tmp_path / "other")
    assert tables(tmp_path / "out") == tables(tmp_path / "other")
    assert not (tmp_path / "out" / ".import").exists()


def test_files_that_are_written_are_not_written_again(tmp_path, monkeypatch):
    folder = mathv360k(tmp_path / "in")
    with pytest.raises(Stop):
        start(folder, tmp_path / "out", stop_at("rows written", 31))
    written = []

    def write(shard):
        written.append(shard)
        return write_shard(shard)

    monkeypatch.setattr(whole, "write_shard", write)
    start(folder, tmp_path / "out")
    assert len(written) == 2


def test_an_image_that_changed_or_appeared_is_looked_at_again(tmp_path):
    folder = mathv360k(tmp_path / "in")
    images = folder / "data_images" / "IconQA" / "images"
    good = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(good[:30])
    (images / "3.png").rename(tmp_path / "away.png")
    with pytest.raises(Stop):
        start(folder, tmp_path / "out", stop_at("rows written", 1))
    (images / "2.png").write_bytes(good)
    (tmp_path / "away.png").rename(images / "3.png")
    report = start(folder, tmp_path / "out")
    assert (report.resumed, report.broken) == (18, 0)


def test_a_note_that_was_cut_off_is_made_again(tmp_path):
    with Gallery(tmp_path, 1, quiet) as gallery:
        for number in range(3):
            gallery.ask(png(number))
        assert len(gallery.finish()) == 3
    notes = tmp_path / "images.jsonl"
    notes.write_text(notes.read_text()[:-20])
    with Gallery(tmp_path, 1, quiet) as gallery:
        for number in range(3):
            gallery.ask(png(number))
        seen = gallery.finish()
        assert gallery.resumed == 2
    data = gallery.blob.read_bytes()
    starts = [one.start or 0 for one in seen]
    found = [data[start : start + one.size] for start, one in zip(starts, seen, strict=True)]
    assert found == [png(n) for n in range(3)]


def test_a_note_whose_picture_was_lost_is_made_again(tmp_path):
    with Gallery(tmp_path, 1, quiet) as gallery:
        gallery.ask(png(1))
        gallery.finish()
    gallery.blob.write_bytes(b"")
    with Gallery(tmp_path, 1, quiet) as gallery:
        gallery.ask(png(1))
        gallery.finish()
    assert gallery.resumed == 0
    assert gallery.blob.read_bytes() == png(1)


def test_several_processes_make_what_one_makes(tmp_path):
    folder = mathv360k(tmp_path / "in", images=40)
    told = []
    start(folder, tmp_path / "one")
    start(folder, tmp_path / "two", lambda *what: told.append(what), workers=2)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert (40, 40, "images") in told
    assert (120, 120, "rows written") in told


def test_a_worker_that_is_killed_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(galleries, "look_at_all", die)
    with pytest.raises(WorkerLost, match="fewer --workers"):
        look_at_many(tmp_path)


def look_at_many(folder):
    with Gallery(folder, 2, quiet) as gallery:
        for number in range(100):
            gallery.ask(png(number))
        gallery.finish()


def die(images):
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_imports_into_one_folder_do_not_meet(tmp_path):
    folder = mathv360k(tmp_path / "in")

    def tell(*_):
        with pytest.raises(ConflictError, match="another import"):
            start(folder, tmp_path / "out")

    start(folder, tmp_path / "out", tell)


KILLED = """
import sys, time
from pathlib import Path
from tests.data.importing.test_resuming import start
def tell(done, total, what):
    if done >= 16:
        print("now", flush=True)
        time.sleep(600)
if __name__ == "__main__":
    start(Path(sys.argv[1]), Path(sys.argv[2]), tell, workers=2)
"""


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_import_leaves_no_process_and_goes_on(tmp_path):
    folder = mathv360k(tmp_path / "in", images=40)
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    command = [sys.executable, str(script), str(folder), str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        workers = children(process.pid)
        process.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    report = start(folder, tmp_path / "out")
    assert report.resumed >= 16
    assert json.loads((tmp_path / "out" / "import.json").read_text())["report"]["images"] == 40


def test_a_full_disk_is_one_message_and_the_import_goes_on(tmp_path, monkeypatch):
    folder = mathv360k(tmp_path / "in")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Gallery, "_note", full)
    with pytest.raises(StorageError, match=r"No space left .* goes on where it was"):
        start(folder, tmp_path / "out")
    monkeypatch.undo()
    assert start(folder, tmp_path / "out").read == 60


def test_one_that_was_killed_while_it_moved_its_files_moves_them_again(tmp_path, monkeypatch):
    folder = mathv360k(tmp_path / "in")
    moves = []

    def rename(path, target, move=Path.rename):
        moves.append(target)
        if len(moves) == 2:
            raise Stop
        return move(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Stop):
        start(folder, tmp_path / "out")
    monkeypatch.undo()
    start(folder, tmp_path / "out")
    start(folder, tmp_path / "other")
    assert tables(tmp_path / "out") == tables(tmp_path / "other")
