"""Importing rows shaped like MathV360K's, beside what cannot be avoided: decoding each image once, and writing it.

``python -m bench.data_import --rows 100000`` prints one JSON object. The rows ask nine questions about an image, as
MathV360K's do, and the images are of its sizes: charts and diagrams as PNG, photographs as JPEG. What is beside it does
the same decoding in as many processes and nothing else, then writes the same bytes; its files are in the page cache, as
are the import's. Seconds are of the clock and of all processes' CPU, the start of processes included on both sides.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw

from mstar.data.images import decode_image
from mstar.data.importing.mathv360k import ANNOTATIONS, find_files, read_mathv360k
from mstar.data.importing.records import Asked, Shares
from mstar.data.importing.whole import import_data

AN_IMAGE = 9
DIFFERENT = 200
"""Pictures drawn; the others are these with one pixel changed, because drawing costs more than importing."""


def picture(chance: random.Random, *, photo: bool) -> tuple[Image.Image, str]:
    width, height = chance.randint(300, 900), chance.randint(200, 700)
    if photo:
        small = Image.effect_noise((width // 12, height // 12), 90).convert("RGB")
        return small.resize((width, height), Image.Resampling.BICUBIC), "JPEG"
    found = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(found)
    for _ in range(60):
        ends = [(chance.randrange(width), chance.randrange(height)) for _ in range(2)]
        pen.line(ends, fill=tuple(chance.choices(range(256), k=3)), width=chance.randint(1, 5))
        pen.text(ends[0], f"{chance.random():.3f}", fill="black")
    return found, "PNG"


def make(folder: Path, rows: int) -> int:
    """A data set of ``rows`` in the published format; the bytes of its images."""
    chance = random.Random(0)
    drawn = [picture(chance, photo=number % 3 == 0) for number in range(DIFFERENT)]
    images = folder / "data_images" / "IconQA" / "images"
    images.mkdir(parents=True)
    size = 0
    items: list[dict[str, object]] = []
    for number in range(-(-rows // AN_IMAGE)):
        found, form = drawn[number % DIFFERENT]
        found.putpixel((number % found.width, number // found.width % found.height), (1, 2, 3))
        buffer = io.BytesIO()
        found.save(buffer, form)
        name = f"{number}.{'jpg' if form == 'JPEG' else 'png'}"
        size += (images / name).write_bytes(buffer.getvalue())
        for question in range(AN_IMAGE):
            items.append(item(len(items), name, question, number))
    with (folder / ANNOTATIONS).open("w") as file:
        json.dump(items[:rows], file)
    return size


def item(number: int, image: str, question: int, seed: int) -> dict[str, object]:
    asked = f"Question: How long is side {question} of figure {seed}, and which of the others is longer?"
    if question % 2:
        hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
        text = (
            f"<image>\n{hint}\n{asked}\nChoices:\n(A) {seed}\n(B) {seed + 1} cm\n(C) none\n(D) both"
        )
    else:
        hint = (
            "Hint: Please answer the question requiring an integer answer and provide the final value, "
            "e.g., 1, 2, 3, at the end."
        )
        text = f"<image>\n{hint}\n{asked}"
    said = f"The answer is {'ABCD'[seed % 4] if question % 2 else seed}"
    talk = [{"from": "human", "value": text}, {"from": "gpt", "value": said}]
    return {"id": f"identity_{number}", "image": f"IconQA/images/{image}", "conversations": talk}


def decode(path: str) -> int:
    return decode_image(Path(path).read_bytes(), "bench").width


def bare(folder: Path, target: Path, workers: int) -> None:
    """Decode every image once, then read each and write it into one file."""
    paths = [str(path) for path in sorted(folder.rglob("images/*"))]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(decode, paths, chunksize=16))
    with target.open("wb") as file:
        for path in paths:
            file.write(Path(path).read_bytes())
        file.flush()
        os.fsync(file.fileno())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of the CPU in this process and those it has started and awaited."""
    begin, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - begin, sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mstar-bench-") as scratch:
        folder = Path(scratch) / "published"
        size = make(folder, asked.rows)
        least = timed(lambda: bare(folder, Path(scratch) / "bytes", asked.workers))
        test = min(750, asked.rows // 10)
        shares = Shares(test=test, validation=test // 3)
        how = Asked(identity={}, shares=shares, workers=asked.workers)
        rows = read_mathv360k(*find_files(folder))
        out = Path(scratch) / "out"
        ours = timed(lambda: import_data(rows, out, how, lambda *_: None))
        report = import_data(iter(()), out, how, lambda *_: None)
        written = sum(path.stat().st_size for path in out.glob("*.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "rows": report.read,
        "images": report.images,
        "image_mib": round(size / 2**20, 1),
        "written_mib": round(written / 2**20, 1),
        "workers": asked.workers,
        "seconds": round(ours[0], 2),
        "cpu_seconds": round(ours[1], 2),
        "rows_per_second": round(report.read / ours[0]),
        "bare_seconds": round(least[0], 2),
        "bare_cpu_seconds": round(least[1], 2),
        "share_of_bare": round(least[0] / ours[0], 3),
        "share_of_bare_cpu": round(least[1] / ours[1], 3),
        "peak_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
