"""Facts from what lies on the disk, and from what a person says."""

import json
import struct
from pathlib import Path

import pytest
from PIL import Image

from mstar import errors
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder
from mstar.estimate.folders import image_tokens, read_data, read_model
from mstar.estimate.models import from_config
from mstar.estimate.ranges import Range
from tests.runs import small_spec
from tests.tiny import write_tensors

CONFIG = {
    "model_type": "any",
    "tie_word_embeddings": True,
    "text_config": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
        "vocab_size": 10,
    },
    "vision_config": {"depth": 2, "embed_dim": 4, "mlp_ratio": 2},
}


def write_model(folder: Path, shapes=None, config=CONFIG) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if shapes is not None:
        write_tensors(folder / "model.safetensors", shapes)
    return folder


def test_parameters_are_counted_in_the_weights_own_headers(tmp_path):
    shapes = {
        "model.visual.proj.weight": [4, 5],
        "model.layers.0.weight": [6, 7],
        "lm_head.bias": [],
    }
    facts = read_model(str(write_model(tmp_path / "m", shapes)), "model")
    assert facts.parameters == 20 + 42 + 1
    assert facts.vision_parameters == 20
    assert facts.stored_bytes == sum(file.stat().st_size for file in (tmp_path / "m").iterdir())


def test_without_weights_they_are_counted_by_the_shape(tmp_path):
    facts = read_model(str(write_model(tmp_path / "m")), "model")
    # Queries and outputs of two heads of 4, keys and values of one; three wide matrices; ten words.
    decoder = 3 * (8 * 4 * (2 * 2 + 2 * 1) + 3 * 8 * 16) + 10 * 8
    tower = 2 * (4 + 2 * 2) * 16
    assert facts.parameters == decoder + tower
    assert "config.json" in facts.source


def test_the_count_by_shape_is_near_the_demo_s_own_weights():
    folder = base_folder()
    counted = read_model(str(folder), "model")
    by_shape = from_config("base", json.loads((folder / "config.json").read_text()))
    assert counted.parameters == pytest.approx(818_240)
    assert by_shape.parameters == pytest.approx(counted.parameters, rel=0.2)
    assert (counted.layers, counted.hidden, counted.kv_heads, counted.head_size) == (4, 128, 2, 32)


def test_the_paper_s_models_are_known_by_their_folders_names():
    sizes = {"MiniCPM-Llama3-V-2_5": 8.5e9, "Phi-3.5-vision-instruct": 4.1e9, "InternVL2-2B": 2.2e9}
    for name, size in sizes.items():
        facts = read_model(f"/nowhere/{name}", "model")
        assert facts.parameters == pytest.approx(size, rel=0.02)
        assert "known" in facts.source


def test_a_model_that_nobody_knows_needs_a_number():
    with pytest.raises(errors.ModelError, match=r"--parameters 8\.5e9"):
        read_model("/nowhere/other", "model")
    with pytest.raises(errors.ModelError, match="--teacher-parameters"):
        read_model("/nowhere/other", "teacher")
    facts = read_model("/nowhere/other", "model", 7e9)
    assert facts.parameters == 7e9
    # In a usual shape a decoder of that size comes out: twelve times layers and width squared.
    assert 12 * facts.layers * facts.hidden**2 == pytest.approx(7e9, rel=0.1)


@pytest.mark.parametrize("place", ["weights", "table"])
def test_a_number_that_contradicts_what_is_there_is_refused(tmp_path, place):
    path = "/nowhere/InternVL2-2B"
    if place == "weights":
        path = str(write_model(tmp_path / "m", {"w": [100, 10]}))
    with pytest.raises(errors.SpecError, match="--parameters says"):
        read_model(path, "model", 8.5e9)


def test_a_config_without_a_shape_asks_for_the_number(tmp_path):
    folder = write_model(tmp_path / "m", config={"model_type": "odd"})
    with pytest.raises(errors.ModelError, match="give --parameters"):
        read_model(str(folder), "model")
    assert read_model(str(folder), "model", 3e9).parameters == 3e9


@pytest.mark.parametrize(
    "content", [b"", b"abc", struct.pack("<Q", 1 << 60), struct.pack("<Q", 5) + b"[1,2]"]
)
def test_weights_that_are_none_are_said_to_be_none(tmp_path, content):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(errors.ModelError, match="not a safetensors file"):
        read_model(str(folder), "model")


def test_a_config_that_is_no_json_object_is_refused(tmp_path):
    folder = write_model(tmp_path / "m")
    for text in ("[]", "{"):
        (folder / "config.json").write_text(text)
        with pytest.raises(errors.ModelError, match=r"config\.json"):
            read_model(str(folder), "model")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate") / "data"
    write_dataset(folder, sizes={"train": 8, "validation": 4, "test": 4})
    return folder


def test_queries_are_counted_in_the_files_footers(data):
    found = read_data(small_spec(data={"path": str(data)}), {})
    assert found.queries == {"train": 8, "validation": 4, "test": 4}
    assert found.bytes == sum(file.stat().st_size for file in data.glob("*.parquet"))
    assert len(found.images) == len(found.questions) == 8


def test_data_that_is_not_there_needs_a_number_for_each_split():
    with pytest.raises(errors.DataError, match="--queries validation=N --queries test=N"):
        read_data(small_spec(), {"train": 5})
    counts = {"train": 5, "validation": 4, "test": 3}
    assert read_data(small_spec(), counts).queries == counts


def test_a_count_that_contradicts_the_files_is_refused(data):
    with pytest.raises(errors.SpecError, match="has 8 queries there"):
        read_data(small_spec(data={"path": str(data)}), {"train": 9})


def test_a_split_that_the_spec_does_not_name_is_refused():
    with pytest.raises(errors.SpecError, match="train, validation, test"):
        read_data(small_spec(), {"trian": 5})


def test_image_tokens_follow_from_sizes_where_patches_are_merged(data):
    # The demo's processor scales every image to 1,024 pixels, and merges two by two patches of eight.
    assert image_tokens(str(base_folder()), [(64, 64), (200, 200)], 10**7) == Range.of(4)
    assert image_tokens("/nowhere", [(64, 64)], 10**7) is None
    assert image_tokens(str(base_folder()), [], 10**7) is None


def test_image_tokens_equal_those_of_the_stock_processor(tmp_path):
    transformers = pytest.importorskip("transformers")
    pixels = {
        "patch_size": 14,
        "merge_size": 2,
        "size": {"shortest_edge": 3136, "longest_edge": 200_704},
    }
    processor = transformers.Qwen2VLImageProcessor(**pixels)
    processor.save_pretrained(tmp_path)
    for size in ((100, 100), (640, 480), (30, 900), (1000, 1000)):
        grid = processor(images=[Image.new("RGB", size)])["image_grid_thw"][0]
        expected = int(grid[1]) * int(grid[2]) / 4
        found = image_tokens(str(tmp_path), [size], 10**9)
        assert found is not None
        assert found.low == pytest.approx(expected, rel=0.1)
