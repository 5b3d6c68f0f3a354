"""Weights of another model and processors of another version give one clear message when a folder is opened."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.smolvlm import processing_smolvlm

from mstar.errors import MissingDependency, ModelError
from mstar.models.family import load_family
from tests.models.making import ask
from tests.models.tiny_families import build

CPU = torch.device("cpu")


@pytest.fixture
def copy(known, tmp_path):
    return shutil.copytree(known, tmp_path / known.name)


@pytest.fixture
def qwen(tmp_path):
    return build("qwen2_vl", tmp_path / "qwen2_vl")


def change(folder, name, **values):
    """Set keys of a JSON file, dots leading inside; None takes a key out."""
    path = folder / name
    content = json.loads(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place.pop(last, None)
        if value is not None:
            place[last] = value
    path.write_text(json.dumps(content))


OTHER_VERSION: dict[str, dict[str, object]] = {
    "qwen2_vl": {"image_processor__patch_size": 8},
    "qwen2_5_vl": {"image_processor__merge_size": 4},
    "qwen3_vl": {"image_processor__temporal_patch_size": 1},
    "internvl": {"image_seq_length": 16},
    "smolvlm": {"image_seq_len": 16},
    "llava_onevision": {"vision_aspect_ratio": "anyres_max_4"},
}


def test_a_folder_without_its_tokenizer_s_files_says_so(qwen):
    for file in qwen.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_family(qwen)


def test_a_processor_that_makes_other_tokens_than_the_model_needs_is_refused_when_opened(copy):
    values = OTHER_VERSION[copy.name]
    change(copy, "processor_config.json", **values)
    ((key, found),) = values.items()
    with pytest.raises(ModelError, match="does not fit the model") as told:
        load_family(copy)
    assert key.replace("__", ".") in str(told.value)
    assert repr(found) in str(told.value)


def test_a_processor_written_as_it_is_published_opens_alike(copy, known):
    """The image processor in a file of its own, as on the hub; one file holds all since transformers 5."""
    whole = json.loads((copy / "processor_config.json").read_text())
    kind = whole["processor_class"]
    pictures = whole.pop("image_processor") | {"processor_class": kind}
    (copy / "preprocessor_config.json").write_text(json.dumps(pictures))
    videos = whole.pop("video_processor")
    (copy / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (copy / "processor_config.json").write_text(json.dumps(whole))
    (mine,), (theirs,) = (load_family(path).encode([ask(size=(56, 20))]) for path in (copy, known))
    assert mine.tokens == theirs.tokens
    assert torch.equal(mine.images["pixel_values"], theirs.images["pixel_values"])


def test_pixel_limits_as_qwen_first_published_them_are_read(qwen):
    change(
        qwen,
        "processor_config.json",
        image_processor__size=None,
        image_processor__min_pixels=256,
        image_processor__max_pixels=1024,
    )
    family = load_family(qwen)
    assert family.image_limit.endswith("(now 1024 pixels)")
    assert family.measure([ask(size=(300, 300))])[0][1] == 1024 // 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_processor__image_processor_type": "NextImageProcessor"}, "usable processor"),
        ({"processor_class": "NextProcessor"}, "Processor|processor"),
        ({"image_processor__size": {"side": 16}}, "processor"),
        ({"image_processor__patch_size": "4"}, "patch_size"),
        ({"image_processor": None}, "processor"),
    ],
)
def test_a_processor_that_this_version_does_not_know_is_one_message(qwen, values, message):
    change(qwen, "processor_config.json", **values)
    with pytest.raises(ModelError, match=message):
        load_family(qwen)


def test_who_wrote_a_folder_and_who_reads_it_is_told_where_they_differ(qwen):
    change(qwen, "config.json", transformers_version="99.1.0")
    (qwen / "processor_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"saved by transformers 99\.1\.0, and 5\."):
        load_family(qwen)


def test_a_chat_template_without_an_image_is_refused(copy):
    (copy / "chat_template.jinja").write_text("{{ messages[0]['content'][1]['text'] }}")
    with pytest.raises(ModelError, match=r"puts 0 times .* into a prompt of one image"):
        load_family(copy)


def test_a_chat_template_that_shows_the_image_twice_is_refused(copy):
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(template + template)
    with pytest.raises(ModelError, match="puts 2 times"):
        load_family(copy)


def test_a_tokenizer_of_another_model_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["vocab_size"] = 290
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="tokens and the model embeds 290"):
        load_family(copy)


def test_a_package_that_a_processor_needs_is_named(tmp_path, monkeypatch):
    folder = build("smolvlm", tmp_path / "smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(MissingDependency, match=r"mstar\[train\].*num2words"):
        load_family(folder)


def test_layers_that_the_config_leaves_out_are_not_dropped_without_a_word(qwen):
    config = json.loads((qwen / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    config["text_config"].pop("layer_types", None)
    (qwen / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"tensors of layers that its config\.json does not ask"):
        load_family(qwen).load(dtype=torch.float32, device=CPU)


def test_a_tensor_that_no_layer_is_called_after_is_ignored_as_transformers_does(qwen):
    path = qwen / "model.safetensors"
    save_file(load_file(path) | {"extra.head": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert load_family(qwen).load(dtype=torch.float32, device=CPU)


def test_weights_of_another_size_are_refused(qwen, tmp_path):
    other = build("qwen2_vl", tmp_path / "wider", width=128)
    shutil.copy(other / "model.safetensors", qwen / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_family(qwen).load(dtype=torch.float32, device=CPU)


def test_weights_of_another_family_are_refused(qwen, tmp_path):
    other = build("internvl", tmp_path / "internvl")
    shutil.copy(other / "model.safetensors", qwen / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack \d+ tensors|cannot be loaded"):
        load_family(qwen).load(dtype=torch.float32, device=CPU)


def test_vision_windows_that_cut_a_token_are_refused(tmp_path):
    folder = build("qwen2_5_vl", tmp_path / "qwen2_5_vl")
    change(folder, "config.json", vision_config__window_size=12)
    with pytest.raises(ModelError, match="a vision window of 12 pixels is no whole number"):
        load_family(folder)


def test_image_features_for_layers_that_are_not_there_are_refused(tmp_path):
    folder = build("qwen3_vl", tmp_path / "qwen3_vl")
    change(folder, "config.json", text_config__num_hidden_layers=1, text_config__layer_types=None)
    with pytest.raises(ModelError, match="features for 2 layers of the language model, which has"):
        load_family(folder)
