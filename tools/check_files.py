"""Fail when a file of the project names a machine's path or a package registry's host, or grows too long.

Such names work on the machine where they were written and nowhere else. Run by ``make check``; needs only git and the
standard library.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400

# Each pattern is written so that it does not find itself.
FORBIDDEN = {
    "a path of one machine": re.compile(
        r"(?<![\w.$}{/-])/(?:work/(?:main|shared|\.)|root/|Users/\w|home/[a-z])[\w.-]*|[A-Z]:\\\\?Users"
    ),
    "a registry's host": re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|crates\.io|proxy\.golang\.org|"
        r"repo1?\.maven\.org|(?:deb|security|archive)\.(?:debian|ubuntu)\.(?:org|com))"
    ),
    "a folder outside the project": re.compile(r"\.\./shared\b"),
}
ADDRESS = re.compile(r"[a-z+]+://|--(?:extra-)?index-url|--find-links")


def project_files() -> Iterator[Path]:
    """Files that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in sorted(set(filter(None, listed.stdout.split("\0")))):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            yield path


def faults(path: Path) -> Iterator[str]:
    """What is wrong with one file, a line each."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    name = path.relative_to(ROOT)
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        for what, pattern in FORBIDDEN.items():
            if found := pattern.search(line):
                yield f"{name}:{number}: names {what}: {found.group()}"
        if name.parts[0] == "requirements" and (found := ADDRESS.search(line)):
            yield f"{name}:{number}: a lock holds a download address: {found.group()}"
    if path.suffix == ".py" and len(lines) > LONGEST:
        yield f"{name}: {len(lines)} lines, at most {LONGEST} are allowed: split it by what changes together"


def main() -> int:
    """Print every fault; 1 when there is one."""
    count = 0
    for path in project_files():
        for fault in faults(path):
            print(fault)
            count += 1
    print(f"clean files: {count} faults" if count else "clean files: nothing found")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
