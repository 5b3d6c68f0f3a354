"""Built-in names in a spec become folders: shipped, or made once and kept."""

import pytest

from mstar.demo import builtin
from mstar.demo.builtin import resolve_inputs
from mstar.demo.specs import base_folder
from mstar.errors import SpecError, StorageError
from tests.runs import small_spec


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mstar"


def spec_of(model="model", data="data"):
    return small_spec(model=model, data={"path": data})


def test_folders_are_left_alone():
    spec = spec_of("/models/base", "/data")
    assert resolve_inputs(spec) == spec


def test_the_base_is_the_one_that_ships(cache):
    assert resolve_inputs(spec_of("demo:base")).model == str(base_folder())
    assert resolve_inputs(spec_of("demo:base?seed=0&size=base")).model == str(base_folder())
    assert not cache.exists()


@pytest.mark.parametrize(
    "name",
    [
        "demo:bass",
        "demo:base?seed=x",
        "demo:base?seed=-1",
        "demo:base?size=huge",
        "demo:base?sed=1",
        "demo:base?seed",
    ],
)
def test_a_model_that_there_is_not_is_a_mistake(name):
    with pytest.raises(SpecError, match=r"the built-in models are demo:base, or demo:base\?seed=1"):
        resolve_inputs(spec_of(name))


def test_a_data_set_that_there_is_not_is_a_mistake():
    with pytest.raises(SpecError, match="the only built-in data set is demo:digits"):
        resolve_inputs(spec_of(data="demo:letters"))


def test_what_is_made_is_made_once_and_moved_into_place_whole(cache, monkeypatch):
    made = []

    def build(folder, settings, progress):
        made.append((settings.seed, settings.size))
        folder.mkdir()
        progress("vision", 1, 2, 0.5)
        assert not (cache / "small-seed3-1").exists()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("mstar.demo.pretrain.build_base", build)
    told = []
    for _ in range(2):
        spec = resolve_inputs(
            spec_of("demo:base?seed=3&size=small"), lambda *said: told.append(said)
        )
        assert spec.model == str(cache / "small-seed3-1")
    assert made == [(3, "small")]
    assert told == [("pre-training demo:base?seed=3&size=small: vision", 1, 2)]
    assert [path.name for path in cache.iterdir()] == ["small-seed3-1"]


def test_a_build_that_is_interrupted_leaves_nothing(cache, monkeypatch):
    def build(folder, settings, progress):
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("mstar.demo.pretrain.build_base", build)
    with pytest.raises(KeyboardInterrupt):
        resolve_inputs(spec_of("demo:base?seed=1"))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="base-seed1-1 cannot be made"):
        resolve_inputs(spec_of("demo:base?seed=1"))


def test_the_data_set_has_an_unlabeled_split(cache, monkeypatch):
    monkeypatch.setattr("mstar.demo.dataset.ALL_SIZES", {"train": 4, "unlabeled": 4})
    folder = builtin.Path(resolve_inputs(spec_of(data="demo:digits")).data.path)
    assert sorted(path.name for path in folder.iterdir()) == ["train.parquet", "unlabeled.parquet"]
