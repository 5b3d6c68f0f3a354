"""An exported folder is the checkpoint, says what it is, and is whole or not there."""

import json
import shutil

import pytest
import yaml

from mstar.benchmarks.answers import file_digests, weights_digest
from mstar.core.metrics import wilson_interval
from mstar.errors import (  # fmt: skip
    ConflictError,
    DataError,
    IntegrityError,
    ModelError,
    NotFound,
    SpecError,
    StorageError,
)
from mstar.export import writing
from mstar.export.choosing import choose
from mstar.export.lineage import made_steps, model_files, read_benchmarks, trace
from mstar.export.writing import export
from mstar.storage import keys
from mstar.storage.memory import MemoryStore
from mstar.storage.store import Store
from tests.report.making import make_run, make_spec, make_store


def opened(folder):
    """A folder that opens."""


def exported(store: Store, target, step="last", *, prm=False, open_folder=opened, **more):
    run, steps = made_steps(store, "mstar")
    what = trace(run, steps, choose("mstar", steps, step, prm=prm), more.pop("benchmarks", ()))
    return export(store, what, target, open_folder=open_folder, **more)


def front(folder):
    """A card's front matter."""
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def nothing_beside(target, *names):
    return sorted(path.name for path in target.parent.iterdir()) == sorted(names)


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model"


def test_the_folder_is_the_checkpoint_byte_for_byte(store, target, model):
    exported(store, target)
    for path in model.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
    assert nothing_beside(target, "model")


@pytest.mark.slow
def test_it_loads_in_transformers_alone_and_gives_the_checkpoint_s_logits(store, target, model):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from mstar.models.opening import open_folder
    from tests.tiny import draw_image

    exported(store, target, open_folder=open_folder)
    found = []
    for folder in (model, target):
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        network = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        turn = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "1 + 1?"}]}
        ]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        inputs = processor(images=[draw_image()], text=[text], return_tensors="pt")
        with torch.no_grad():
            found.append(network(**inputs).logits)
    assert torch.equal(*found)


def test_the_card_s_front_matter_is_what_the_hub_reads(store, target):
    from huggingface_hub import ModelCard

    exported(store, target, license_="apache-2.0")
    data = ModelCard.load(target / "README.md").data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "tiny", ["data"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    (validation, test) = data.eval_results
    assert (validation.dataset_split, test.dataset_split) == ("validation", "test")
    assert (test.metric_type, test.metric_value) == ("accuracy", 75.0)
    assert "model_index" not in data.to_dict(), "it was understood"


def test_the_card_says_scores_recipe_data_and_every_step_since_the_base(store, target):
    record = exported(store, target)
    text = (target / "README.md").read_text(encoding="utf-8")
    assert front(target)["license"] == "unknown"
    assert "| this model | test | 75.0 [" in text
    assert "| base | test | 25.0 [" in text
    assert "Top-2" in text
    names = [step["name"] for step in record["lineage"]]
    assert names[0] == "warm-up/generate"
    assert names[-1] == "iter-02/train"
    assert "prm/train" in names, "it chose what was trained on"
    assert not [name for name in names if name.endswith(("/test", "/evaluate"))]
    for step in record["lineage"]:
        assert step["name"] in text
        assert step["digest"][:16] in text
        assert step["seed"] is not None
        assert step["versions"]
    assert record["data"]["digest"] in text
    assert "/machine" not in text, "no folder of the machine that made it"
    assert json.loads((target / "mstar.json").read_bytes()) == json.loads(json.dumps(record))


def test_the_first_checkpoint_comes_from_the_base_by_the_warm_up_alone(store, target):
    record = exported(store, target, "warm-up")
    assert [step["name"] for step in record["lineage"]] == [
        "warm-up/generate",
        "warm-up/score",
        "warm-up/train",
    ]
    assert [score["step"] for score in record["scores"]][:2] == ["base/test", "warm-up/test"]


def test_best_is_the_highest_on_validation_and_of_equal_ones_the_least_trained(store):
    _, steps = made_steps(store, "mstar")
    assert choose("mstar", steps, "best").name == "warm-up/train"
    for made in steps:
        if made.name == "iter-01/evaluate":
            made.results["greedy"]["accuracy"] = 0.9
    assert choose("mstar", steps, "best").name == "iter-01/train"
    assert choose("mstar", steps, "last").name == "iter-02/train"


def test_the_reward_model_is_exported_when_asked_for(store, target):
    record = exported(store, target, prm=True)
    assert (record["kind"], record["step"]) == ("prm", "prm/train")
    assert "process-reward-model" in front(target)["tags"]
    assert "model-index" not in front(target)
    with pytest.raises(SpecError, match="--step iter-01"):
        exported(store, target, "iter-01", prm=True)


def test_scores_of_benchmarks_stand_on_the_card_with_their_interval(store, target):
    run, steps = made_steps(store, "mstar")
    made = choose("mstar", steps)
    body = scores_of(made, by_judge=2)
    found = read_benchmarks(body, "scores.json", made, run.spec.prompts.query)
    record = exported(store, target, benchmarks=found)
    low, high = wilson_interval(6, 10)
    (said,) = record["benchmarks"]
    assert said == {
        "name": "mmstar", "title": "MMStar", "prompt": "official", "source": "mstarctl eval", "by_judge": 2,
        "published": 1500, "value": 0.6, "low": low, "high": high, "n": 10,
    }  # fmt: skip
    text = (target / "README.md").read_text(encoding="utf-8")
    assert "| MMStar | official | 60.0 [" in text
    assert "| 10 of 1,500 | `mstarctl eval` |" in text
    assert "a language model read 2" in text
    assert "without a language model" not in text
    wrongs: tuple[object, ...] = ([], {}, {"scores": [{"benchmark": "x"}]})
    for wrong in wrongs:
        with pytest.raises(DataError, match="no scores"):
            read_benchmarks(wrong, "scores.json", made, "")


def scores_of(made, **more):
    """What ``mstarctl eval`` writes of a checkpoint, in the official prompt."""
    row = {"benchmark": "mmstar", "title": "MMStar", "correct": 6, "total": 10} | more
    return {
        "asked": {"weights": weights_digest(model_files(made)), "prompt": None},
        "scores": [row],
    }


def test_scores_of_another_model_or_of_nobody_knows_which_are_refused(store, target):
    _, steps = made_steps(store, "mstar")
    made = choose("mstar", steps)
    body = scores_of(made)
    exported(store, target)
    copied = weights_digest(file_digests(target))
    assert copied == body["asked"]["weights"], "an exported folder, with its card, is the same"
    for name in ("model.safetensors", "config.json"):
        (target / name).write_bytes(b"trained on")
    body["asked"]["weights"] = weights_digest(file_digests(target))
    with pytest.raises(ConflictError, match="scores of another model than iter-02/train"):
        read_benchmarks(body, "scores.json", made, "")
    del body["asked"]
    with pytest.raises(DataError, match="does not say which model"):
        read_benchmarks(body, "scores.json", made, "")


def test_a_benchmark_that_was_asked_twice_is_told_apart_by_its_prompt(tmp_path, model, target):
    store = make_store(tmp_path)
    asked = {"benchmarks": {"path": "/machine/files/public", "names": ["mmstar"]}}
    make_run(store, tmp_path, make_spec(evaluation=asked), model=model)
    run, steps = made_steps(store, "mstar")
    made = choose("mstar", steps)
    official = read_benchmarks(scores_of(made), "scores.json", made, run.spec.prompts.query)
    record = exported(store, target, benchmarks=official)
    assert [each["prompt"] for each in record["benchmarks"]] == ["run", "official"]
    text = (target / "README.md").read_text(encoding="utf-8")
    assert "| the run's | 50.0 [" in text
    assert "| `final/benchmarks` |" in text
    names = [
        result["metrics"][0]["name"] for result in front(target)["model-index"][0]["results"][-2:]
    ]
    assert [name.split(", ")[1] for name in names] == ["the run's prompt", "official prompt"]
    assert record["recipe"]["evaluation"]["benchmarks"]["path"] == "public"
    assert "/machine" not in text, "no folder of the machine that made it"


def test_benchmarks_that_the_run_ended_with_are_the_policy_s_that_they_asked(
    tmp_path, model, target
):
    store = make_store(tmp_path)
    asked = {"benchmarks": {"path": "b", "names": ["mmstar"]}}
    make_run(store, tmp_path, make_spec(evaluation=asked), model=model)
    record = exported(store, target)
    assert [(each["name"], each["value"]) for each in record["benchmarks"]] == [("mmstar", 0.5)]
    assert exported(store, target.parent / "first", "warm-up")["benchmarks"] == []


def test_a_checkpoint_without_them_takes_chat_template_and_generation_settings_from_its_base(
    tmp_path, model, target
):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    store = make_store(tmp_path)
    run = make_run(store, tmp_path, make_spec(), until=0, model=model)
    for name in ("generation_config.json", "chat_template.jinja"):
        (bare / name).unlink()
    make_run_on(store, tmp_path, run, bare)
    exported(store, target)
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (target / name).read_bytes() == (model / name).read_bytes()


def make_run_on(store, folder, run, model):
    """The whole run, with other checkpoints than its base."""
    from mstar.history import Entry, append_entry, done_step
    from mstar.recipe import follow, recipe
    from mstar.storage.manifest import Ref
    from tests.report.making import commit_step

    program = recipe(run.spec, run.inputs)
    step, index = next(program, None), 0
    while step is not None:
        manifest = commit_step(store, folder, step, model)
        ref = Ref.of(manifest)
        entry = Entry(
            index=index, name=step.name, ref=ref, adopted=False, seconds=1.0, finished_at=1.0
        )
        append_entry(store, run.name, entry)
        step, index = follow(program, step, done_step(step, manifest)), index + 1


def test_exporting_the_same_checkpoint_again_writes_it_anew(store, target):
    exported(store, target)
    (target / "config.json").write_text("{broken")
    exported(store, target, license_="mit")
    assert front(target)["license"] == "mit"
    assert json.loads((target / "config.json").read_bytes())
    assert nothing_beside(target, "model")


def test_a_folder_that_holds_anything_else_is_not_touched(store, target):
    target.mkdir()
    (target / "thesis.tex").write_text("years")
    with pytest.raises(ConflictError, match=r"not empty \(it holds thesis.tex\)"):
        exported(store, target)
    shutil.rmtree(target)
    exported(store, target, "iter-01")
    with pytest.raises(ConflictError, match="another export"):
        exported(store, target, "iter-02")
    exported(store, target, "iter-01")
    (target / "notes.md").write_text("mine")
    with pytest.raises(ConflictError, match=r"notes\.md"):
        exported(store, target, "iter-01")
    assert (target / "notes.md").read_text() == "mine"


def test_an_empty_folder_is_filled(store, target):
    target.mkdir()
    exported(store, target)
    assert (target / "config.json").exists()


def test_a_damaged_part_leaves_nothing_behind(store, target):
    _, steps = made_steps(store, "mstar")
    part = choose("mstar", steps).manifest.part("model/model.safetensors")
    path = store.root / part.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors is altered"):
        exported(store, target)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"model\.safetensors is missing"):
        exported(store, target)
    assert nothing_beside(target)


def test_a_folder_that_does_not_open_is_not_left_as_an_export(store, target):
    def refuse(folder):
        raise ModelError("it does not open")

    with pytest.raises(ModelError):
        exported(store, target, open_folder=refuse)
    assert nothing_beside(target)


def test_what_transformers_cannot_open_is_one_message(tmp_path, model):
    from mstar.models.opening import open_folder

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    open_folder(broken)
    (broken / "config.json").write_text('{"model_type": "nothing_known"}')
    with pytest.raises(ModelError, match="does not open in transformers"):
        open_folder(broken)


def test_an_interrupted_export_leaves_the_one_before_it(store, target):
    exported(store, target, license_="mit")

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exported(store, target, tell=interrupt)
    assert front(target)["license"] == "mit"
    assert nothing_beside(target, "model")


def test_a_full_disk_is_found_before_anything_is_copied(store, target, monkeypatch):
    class Full:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    with pytest.raises(StorageError, match="free space"):
        exported(store, target)
    assert nothing_beside(target)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(store, target, monkeypatch):
    import errno

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "flush", full)
    with pytest.raises(StorageError, match="the disk is full"):
        exported(store, target)
    assert nothing_beside(target)


def test_a_place_where_no_folder_can_be_made_is_one_message(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        exported(store, tmp_path / "file" / "model")
    with pytest.raises(ConflictError, match="is a file; name a folder"):
        exported(store, tmp_path / "file")


def test_a_run_without_a_checkpoint_says_how_far_it_is(tmp_path, model):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec(), until=3, model=model)
    _, steps = made_steps(store, "mstar")
    with pytest.raises(NotFound, match="no checkpoint yet: 3 steps are done, the last is warm-up/score"):  # fmt: skip
        choose("mstar", steps)
    with pytest.raises(NotFound, match="no reward model"):
        choose("mstar", steps, prm=True)
    with pytest.raises(NotFound, match="measured on validation"):
        choose("mstar", steps, "best")


def test_a_checkpoint_that_is_not_there_is_named_beside_those_that_are(store):
    _, steps = made_steps(store, "mstar")
    with pytest.raises(NotFound, match=r"no checkpoint 'iter-09'; it has: warm-up/train, .*iter-02/train"):  # fmt: skip
        choose("mstar", steps, "iter-09")
    with pytest.raises(NotFound, match="no run 'other'"):
        made_steps(store, "other")


def test_a_store_that_is_no_folder_serves_as_well(tmp_path, model, target):
    store = MemoryStore()
    make_run(store, tmp_path, make_spec(), model=model)
    exported(store, target)
    assert (target / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert store.size(keys.spec("mstar"))
