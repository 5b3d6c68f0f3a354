"""One tiny stage from data to commit, with what ships inside the package: no download, no scikit-learn."""

import io
import json
import random
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mstar.config import Prompts
from mstar.demo.dataset import SCHEMA
from mstar.demo.specs import base_folder
from mstar.execution import Execution
from mstar.stages.run import Request, run_request
from mstar.storage.artifacts import commit_dataset, commit_model
from mstar.storage.manifest import Ref
from mstar.storage.store import Store
from mstar.tasks import GenerateTask, Prompt, Queries, Sampling, Slice

QUERIES = 4
SIZE = 28


def run_selftest(store: Store, scratch: Path) -> dict[str, Any]:
    """Commit a data set of noise, the tiny model and a generate step in ``store``; the step's results.

    Data and model of an earlier selftest are used again; the step is a new one each time.
    """
    file = scratch / "train.parquet"
    pq.write_table(pa.Table.from_pylist(_rows(), schema=SCHEMA), file)
    data = commit_dataset(store, {file.name: file}, results={"queries": {"train": QUERIES}})
    model = commit_model(store, base_folder())
    task = GenerateTask(
        model=Ref.of(model),
        source=Queries(data=Ref.of(data), slice=Slice(split="train")),
        prompt=Prompt(template=Prompts().query),
        sampling=Sampling(n=2, max_new_tokens=8),
        seed=secrets.randbits(62),  # a step that is committed already would show nothing
    )
    request = Request(store=store.url, task=task, execution=Execution(threads=1))
    manifest = run_request(request, lambda *_: None, scratch=scratch)
    return json.loads(json.dumps(manifest.results)) | {"step": manifest.id}


def _rows() -> list[dict[str, object]]:
    rng = random.Random(0)
    rows = []
    for index in range(QUERIES):
        picture = Image.frombytes("L", (SIZE, SIZE), rng.randbytes(SIZE * SIZE)).convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        rows.append(
            {
                "id": f"noise-{index}",
                "image": {"bytes": buffer.getvalue(), "path": f"noise-{index}.png"},
                "question": "Take top-left, double it.",
                "options": [],
                "answer": str(index),
                "kind": "free_form",
                "level": 1,
            }
        )
    return rows
