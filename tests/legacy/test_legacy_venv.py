"""The same tests under the transformers that the three models' code was written for."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("MSTAR_LEGACY_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="MSTAR_LEGACY_PYTHON names no Python with transformers 4.48")
def test_the_families_and_backends_hold_under_transformers_4_48():
    assert PYTHON
    asked = [PYTHON, "-c", "import transformers; print(transformers.__version__)"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert version.startswith("4.48."), f"{PYTHON} has transformers {version}"
    names = ("families", "backends", "imports")
    tests = [f"tests/legacy/test_legacy_{name}.py" for name in names]
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    # Warnings are errors here; those of libraries of another year are not ours to mend.
    command += ["-o", "filterwarnings=default"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
