"""The worked examples in CONTRIBUTING.md work as they stand: one file, one test, nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mstar import methods
from mstar.core import rules

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"```python\n# ([\w/]+\.py)\n(.*?)```", re.DOTALL)
EXAMPLES = dict(CODE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
PACKAGES = {"mstar/core/rules": rules, "mstar/methods": methods}


@pytest.mark.parametrize(
    ("example", "test", "key"),
    [
        (
            "mstar/core/rules/tersest.py",
            "tests/core/test_tersest.py",
            "select={rule: tersest, k: 2}",
        ),
        ("mstar/methods/restarting.py", "tests/methods/test_restarting.py", "method=restarting"),
    ],
)
def test_a_worked_example_is_found_by_its_file_alone(tmp_path, example, test, key):
    folder, name = example.rsplit("/", 1)
    (tmp_path / name).write_text(EXAMPLES[example], encoding="utf-8")
    # The package's own folder stays as it is: it is told to look in another one, too.
    program = (
        f"import {PACKAGES[folder].__name__} as package\n"
        f"package.__path__.append({str(tmp_path)!r})\n"
        f"{EXAMPLES[test]}\n"
        "for name, test in list(globals().items()):\n"
        "    if name.startswith('test_'):\n"
        "        test()\n"
        "from pathlib import Path\n"
        "from mstar.config import load_spec\n"
        f"load_spec(Path('recipes/prm-top-2.yaml'), ['evolve.{key}'])\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
