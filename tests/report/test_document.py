"""Files around a page's text."""

import re

import pytest

from mstar.errors import StorageError
from mstar.report.document import resource, write_whole


def test_what_is_written_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path):
    page = tmp_path / "new" / "page.html"
    write_whole(page, b"first")
    write_whole(page, b"second")
    assert page.read_bytes() == b"second"
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]
    assert page.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"study\.json cannot be written: .* --out"):
        write_whole(tmp_path / "file" / "study.json", b"{}")


def test_what_is_hidden_in_a_table_that_scrolls_does_not_widen_the_page():
    """What stands absolutely is placed, and cut off, by the nearest part that is positioned itself."""
    rules = dict(re.findall(r"^(\.\w+) \{([^}]*)\}", resource("page.css"), flags=re.MULTILINE))
    assert "position: absolute" in rules[".hidden"]
    assert "position: relative; overflow-x: auto" in rules[".scroll"]
