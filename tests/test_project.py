"""The project keeps its own promises: versions agree, locks are hashed, exit codes are documented, files are short."""

import ast
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mstar
from mstar import errors

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)( ; [^\\]+?)? \\$")


def pins(lock: Path) -> dict[str, tuple[str, str]]:
    """Version and marker by package."""
    matches = filter(None, map(PIN.match, lock.read_text().splitlines()))
    return {match[1]: (match[2], match[3] or "") for match in matches}


def exceptions(base: type[errors.MstarError] = errors.MstarError) -> list[type[errors.MstarError]]:
    found = [base]
    for child in base.__subclasses__():
        found += exceptions(child)
    return [error for error in found if error.__module__ == "mstar.errors"]


def documented_codes() -> dict[str, int]:
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE
    )
    return {name: int(code) for code, name in rows}


def test_versions_agree_wherever_they_are_written():
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert citation[1] == mstar.__version__
    assert f"## [{mstar.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_exit_code_is_distinct_and_documented():
    codes = {error.__name__: error.exit_code for error in exceptions()}
    assert len(set(codes.values())) == len(codes)
    assert documented_codes() == codes


def test_no_exit_code_collides_with_usage_errors_or_signals():
    assert all(code not in {0, 2} and code < 64 for code in documented_codes().values())


def test_locks_are_the_four_that_setup_uses():
    assert [lock.stem for lock in LOCKS] == ["bootstrap", "cli", "demo", "test"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_in_a_lock_is_pinned_and_hashed(lock: Path):
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    unpinned = [entry for entry in entries if not PIN.match(entry.splitlines()[0])]
    unhashed = [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    assert (unpinned, unhashed) == ([], [])


def test_one_version_of_a_package_in_all_locks():
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, (version, _) in pins(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_locks_serve_macos_too_and_keep_what_is_only_for_linux_off_it():
    test = pins(ROOT / "requirements/test.txt")
    for name, (_, marker) in test.items():
        if name.startswith("nvidia-") or name in {"deepspeed", "triton"}:
            assert "sys_platform == 'linux'" in marker, name
    assert test["torch"][1] == ""


def test_the_demo_needs_nothing_that_the_tests_do_not_install():
    demo, test = pins(ROOT / "requirements/demo.txt"), pins(ROOT / "requirements/test.txt")
    for name, (version, marker) in demo.items():
        assert test[name][0] == version, name
        # The tests may install it on more systems than the demo asks for it on.
        assert test[name][1] in {marker, ""}, name


def test_locks_hold_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = pins(ROOT / "requirements/test.txt")
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    names = {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in asked}
    assert names - {"mstar"} <= locked.keys()


@pytest.mark.parametrize(
    "module", sorted((ROOT / "mstar/core").glob("*.py")), ids=lambda path: path.stem
)
def test_core_imports_the_standard_library_alone(module: Path):
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported.add(node.module or "")
    foreign = {
        name
        for name in imported
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("mstar.core")
    }
    assert foreign == set()


def test_no_file_names_a_machine_or_a_registry_or_is_too_long():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is unknown")
    result = subprocess.run(
        [sys.executable, "tools/check_files.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_test_cannot_reach_the_network():
    with (
        socket.socket() as connection,
        pytest.raises(pytest.fail.Exception, match="this machine only"),
    ):
        connection.connect(("192.0.2.1", 80))
