"""A study whose cells are runs on a real cluster."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.lab import SECONDS, Lab, committed_once
from tests.signals import heeding_interrupts

pytestmark = pytest.mark.slow


def two_rows(lab: Lab) -> Path:
    """A study of one recipe that keeps all right responses, and two at random; the cells run one after the other."""
    recipe = lab.spec("all")
    raw = yaml.safe_load(recipe.read_text())
    del raw["data"]["test"]
    recipe.write_text(yaml.safe_dump(raw))
    chosen = ["evolve.select.rule=random", "evolve.select.k=2"]
    path = lab.folder / "study.yaml"
    study = {
        "name": "pair",
        "store": lab.url,
        "seeds": [7],
        "baseline": "all",
        "rows": ["all.yaml", {"recipe": "all.yaml", "name": "random-2", "set": chosen}],
        "parallel": 1,
    }
    path.write_text(yaml.safe_dump(study))
    return path


def test_a_study_goes_on_in_the_cluster_while_its_command_is_gone_and_rows_adopt_steps(lab: Lab):
    study = two_rows(lab)
    command = [sys.executable, "-m", "mstarctl.main", "study", "-f", str(study)]
    env = os.environ | lab.environment()
    with subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_interrupts,  # noqa: PLW1509 - a test has no other threads
    ) as process:
        try:
            lab.until_running("pair-all-s7", "controller")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "the runs that were started go on in the cluster" in said
    lab.until(lambda found: found["status"]["phase"] == "finished", "pair-all-s7")

    found = lab.mstarctl("study", "-f", str(study))
    assert "random-2" in found.stdout
    body = json.loads((lab.folder / "study.json").read_text())
    assert (body["finished"], body["of"], body["failed"]) == (2, 2, [])
    assert [row["questions"] for row in body["rows"]] == [4, 4]
    adopted = {entry.name for entry in lab.history("pair-random-2-s7") if entry.adopted}
    assert {"base/test", "iter-01/generate"} <= adopted
    assert "iter-01/train" not in adopted
    assert body["adoption"]["adopted"] == len(adopted)
    committed_once(lab, "pair-all-s7", len(lab.history("pair-all-s7")))
