"""A JSON list is read item by item, wherever the pieces it is read in end."""

import json

import pytest

from mstar.data.importing import json_list
from mstar.data.importing.json_list import read_json_list
from mstar.errors import DataError

ITEMS = [{"a": "é]},[{"}, {"b": [1, [2]], "c": None}, {"d": "x" * 50}, {"e": "\\"}]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_items_come_whole_whatever_the_size_of_the_pieces(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(ITEMS, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(read_json_list(path)) == ITEMS


def test_an_empty_list_and_a_byte_order_mark_are_fine(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("\ufeff [ ]\n", encoding="utf-8")
    assert list(read_json_list(path)) == []


def test_what_is_read_before_a_file_is_torn_is_given(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(ITEMS)[:-5])
    found: list[object] = []
    with pytest.raises(DataError, match=r"ends too early .* behind 3 items; fetch it again"):
        found.extend(read_json_list(path))
    assert found == ITEMS[:3]


def test_an_item_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", 10)
    monkeypatch.setattr(json_list, "LONGEST", 100)
    path = tmp_path / "list.json"
    path.write_text('[{"a": "' + "x" * 5000)
    with pytest.raises(DataError, match="item 0 is not JSON"):
        list(read_json_list(path))
