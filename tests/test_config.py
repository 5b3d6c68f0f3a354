"""A spec is read whole, or refused with one message that names every mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar.cluster import with_defaults
from mstar.config import apply_override, load_spec, parse_spec, spec_differences
from mstar.errors import SpecError
from mstar.storage.open import open_store
from tests.runs import small_spec

LEAST: dict[str, Any] = {"name": "a", "data": {"path": "data"}, "model": "model"}


def written(folder: Path, **more: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(LEAST | more))
    return path


def refused(raw: object) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    return str(caught.value)


def test_the_least_spec_is_the_paper_s_recipe():
    spec = parse_spec(LEAST)
    assert spec.evolve.method == "continuous"
    assert spec.evolve.interval == 0.25
    assert (spec.evolve.select.rule, spec.evolve.select.k) == ("top_k", 2)
    assert spec.evolve.rollout.samples == 16
    assert spec.prm is not None
    assert spec.prm.completions == 8
    assert spec.evolve.exploration is not None
    assert spec.evolve.exploration.temperatures[0] == 0.3
    assert spec.evolve.exploration.temperatures[-1] == 1.6


@pytest.mark.parametrize(
    ("change", "key", "hint"),
    [
        ({"evlove": {}}, "evlove", "did you mean evolve?"),
        ({"evolve": {"intervall": 0.5}}, "evolve.intervall", "did you mean interval?"),
        (
            {"warm_up": {"rollout": {"temprature": 1}}},
            "warm_up.rollout.temprature",
            "did you mean temperature?",
        ),
        (
            {"execution": {"deepspeed": {"zero": 1}}},
            "execution.deepspeed.zero",
            "zero_stage",
        ),
        ({"zzz": 1}, "zzz", "valid keys are name, seed, store"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(change, key, hint):
    message = refused(LEAST | change)
    assert f"{key}: unknown key" in message
    assert hint in message


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"seed": "many"}, "seed", "found 'many'"),
        (
            {"execution": {"deepspeed": {"zero_stage": 2, "offload": "parameters"}}},
            "execution.deepspeed",
            "offload parameters needs zero_stage 3",
        ),
        (
            {
                "execution": {"deepspeed": {"zero_stage": 0}},
                "evolve": {"optimization": {"dtype": "bfloat16"}},
            },
            "spec",
            "zero_stage is 0, which does not train as it should in bfloat16",
        ),
        ({"evolve": {"optimization": {"lora": {"rank": 0}}}}, "evolve.optimization.lora.rank", "1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"evolve": {"iterations": 1.5}}, "evolve.iterations", "found 1.5"),
        ({"evolve": {"iterations": 0}}, "evolve.iterations", "found 0"),
        ({"evolve": []}, "evolve", "should be keys and values, found []"),
        ({"model": 7}, "model", "should be text (in quotes where it looks like a number), found 7"),
        ({"cluster": {"namespace": "My.NS"}}, "cluster.namespace", "'My.NS' should be 1 to 63"),
        ({"cluster": {"queue": {"name": "A_B"}}}, "cluster.queue.name", "'A_B' should be 1 to 253"),
        (
            {"cluster": {"images": {"registry": "a b"}}},
            "cluster.images.registry",
            "'a b' should be a registry",
        ),
        (
            {"cluster": {"images": {"pull_policy": "always"}}},
            "cluster.images.pull_policy",
            "should be 'Always', 'IfNotPresent' or 'Never', found 'always'",
        ),
        (
            {"cluster": {"stages": {"score": {"image": "scorer 2"}}}},
            "cluster.stages.score.image",
            "'scorer 2' should be an image",
        ),
        (
            {"cluster": {"stages": {"score": {"execution": {"shard": 3}}}}},
            "cluster",
            "stages.score.execution.shard: unknown key; did you mean shards?",
        ),
        ({"evolve": {"method": "continous"}}, "evolve.method", "'continuous'"),
        ({"evolve": {"rollout": {"temperature": -0.5}}}, "evolve.rollout.temperature", "-0.5"),
        ({"evolve": {"rollout": {"temperature": 0}}}, "evolve.rollout.temperature", "than 0"),
        (
            {"evolve": {"rollout": {"temperature": float("nan")}}},
            "evolve.rollout.temperature",
            "finite",
        ),
        ({"evolve": {"interval": 0}}, "evolve.interval", "above 0 %"),
        ({"evolve": {"interval": "0 %"}}, "evolve.interval", "above 0 %"),
        ({"evolve": {"interval": "250%"}}, "evolve.interval", "at most 100 %"),
        ({"evolve": {"interval": "a quarter"}}, "evolve.interval", "'a quarter'"),
        ({"evolve": {"select": {"rule": "top_k", "k": 17}}}, "evolve", "rollout.samples = 16"),
        ({"evolve": {"select": {"rule": "top_k"}}}, "evolve.select", "needs k"),
        ({"evolve": {"select": {"rule": "topk", "k": 2}}}, "evolve.select.rule", "'top_k'"),
        ({"evolve": {"select": {"rule": "all", "k": 2}}}, "evolve", "takes no k"),
        ({"evolve": {"select": {"rule": "random", "k": 2, "alpha": 0.5}}}, "evolve", "no alpha"),
        ({"evolve": {"interval": 0.3}}, "evolve.interval", "does not tile"),
        ({"evolve": {"interval": "75%"}}, "evolve.interval", "does not tile"),
        ({"evolve": {"unlabeled": {"after": 1}}}, "evolve.unlabeled.after", "less than 1"),
        ({"evolve": {"unlabeled": {"labels": "guess"}}}, "evolve.unlabeled.labels", "'oracle'"),
        ({"evolve": {"unlabeled": {"split": "train"}}}, "spec", "a split of their own"),
        ({"evolve": {"method": "sft", "unlabeled": {}}}, "evolve", "unlabeled must be null"),
        ({"evolve": {"exploration": {"tune_on": "luck"}}}, "evolve.exploration.tune_on", "luck"),
        (
            {"evolve": {"exploration": {"tune_on": "pass_at_k"}}, "evaluation": {"pass_at": []}},
            "spec",
            "name a K there",
        ),
        ({"paper": {"table": 1}}, "paper.row", "required"),
        ({"fresh": ""}, "fresh", "at least 1 character"),
        ({"evolve": {"exploration": {"lowest": 2.0}}}, "evolve.exploration", "above the highest"),
        ({"evolve": {"exploration": {"step": 1e-5}}}, "evolve.exploration", "more than 1000"),
        ({"evaluation": {"pass_at": [32]}}, "evaluation", "samples = 16"),
        ({"evaluation": {"temperatures": [0]}}, "evaluation.temperatures", "above 0"),
        ({"prm": None}, "spec", "prm is null"),
        ({"name": "Not A Name"}, "name", "lower-case"),
        ({"prompts": {"query": "{question"}}, "prompts.query", "cannot be filled in"),
        ({"prompts": {"query": "{letter}"}}, "prompts.query", "{question}, {options}"),
        ({"prompts": {"query": "{question} {answer}"}}, "prompts.query", "{question}, {options}"),
        ({"prompts": {"option": "{question.x}"}}, "prompts.option", "{letter}, {text}"),
        ({"prompts": {"query": "Think."}}, "prompts.query", "does not hold {question}"),
        ({"prompts": {"hinted": "{answer}"}}, "prompts.hinted", "does not hold {question}"),
        ({"data": {"path": "d", "validation": "train"}}, "data", "which is trained on"),
        ({"data": {"path": "d", "test": "train"}}, "data", "which is trained on"),
        ({"prompts": {"option": "{text.x}"}}, "prompts.option", "cannot be filled in"),
        ({"prompts": {"sft_answer": "{answer[x]}"}}, "prompts.sft_answer", "cannot be filled in"),
        ({"prompts": {"step_separator": ""}}, "prompts.step_separator", "at least 1 character"),
        ({"limits": {"attempts": 0}}, "limits.attempts", "found 0"),
        ({"model": None}, "model", "found None"),
    ],
)
def test_a_wrong_type_or_an_impossible_value_is_named(change, key, said):
    message = refused(LEAST | change)
    assert f"\n  {key}: " in message
    assert said in message


ALONE = {"exploration": None}


@pytest.mark.parametrize(
    ("evolve", "asking"),
    [
        ({"select": {"rule": "threshold"}} | ALONE, "evolve.select (rule threshold)"),
        ({"select": {"rule": "top_k", "k": 1}} | ALONE, "evolve.select (rule top_k)"),
        (
            {"select": {"rule": "all"}, "unlabeled": {"labels": "vote"}} | ALONE,
            "evolve.unlabeled (labels vote)",
        ),
        (
            {"select": {"rule": "all"}, "exploration": {}},
            "evolve.exploration (tune_on reward_pass_at_2)",
        ),
    ],
)
def test_what_asks_a_prm_that_is_not_there_is_named_alone(evolve, asking):
    message = refused(LEAST | {"prm": None, "evolve": evolve})
    assert f"\n  spec: prm is null, but a PRM is needed by {asking}; " in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    "evolve",
    [
        {"select": {"rule": "longest", "k": 2}} | ALONE,
        {"select": {"rule": "all"}, "unlabeled": {"labels": "oracle"}} | ALONE,
        {"select": {"rule": "all"}, "exploration": {"tune_on": "pass_at_k"}},
        {"method": "sft"},
    ],
)
def test_what_asks_no_prm_runs_without_one(evolve):
    assert not parse_spec(LEAST | {"prm": None, "evolve": evolve}).evolve.needs_prm


def test_every_mistake_is_listed_at_once():
    message = refused({"name": "a", "data": {"pth": "x"}, "seed": -1})
    lines = message.splitlines()[1:]
    keys = {line.strip().partition(":")[0] for line in lines}
    assert keys == {"data.path", "data.pth", "model", "seed"}
    assert "  model: required, but not there" in lines


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_what_is_no_mapping_is_no_spec(raw):
    assert "expected keys and values" in refused(raw)


@pytest.mark.parametrize(("written_as", "value"), [("25%", 0.25), (" 12.5 % ", 0.125), (1, 1.0)])
def test_an_interval_may_be_a_percentage(written_as, value):
    assert parse_spec(LEAST | {"evolve": {"interval": written_as}}).evolve.interval == value


def test_overrides_set_nested_keys_as_yaml(tmp_path: Path):
    path = written(tmp_path)
    spec = load_spec(
        path, ["evolve.iterations=7", "evolve.exploration=null", "evaluation.pass_at=[1, 4]"]
    )
    assert spec.evolve.iterations == 7
    assert spec.evolve.exploration is None
    assert spec.evaluation.pass_at == (1, 4)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evolve.iterations", "expected key.key=value"),
        ("=4", "expected key.key=value"),
        ("evolve..iterations=4", "expected key.key=value"),
        ("model.x=4", "model is not a group of keys"),
        ("seed=[1", "not YAML"),
        ("evolve.iteratons=4", "did you mean iterations?"),
    ],
)
def test_an_override_that_cannot_be_is_refused(tmp_path: Path, override, said):
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path), [override])
    assert said in str(caught.value)


def test_an_override_makes_the_groups_it_needs():
    raw: dict[str, Any] = {}
    apply_override(raw, "a.b=1")
    apply_override(raw, "a.c=x")
    assert raw == {"a": {"b": 1, "c": "x"}}


def test_relative_paths_are_relative_to_the_spec_file(tmp_path: Path, monkeypatch):
    path = written(tmp_path, store="store")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    spec = load_spec(Path("..") / path.name)
    assert Path(spec.data.path) == tmp_path / "data"
    assert Path(spec.model) == tmp_path / "model"
    assert Path(spec.store) == tmp_path / "store"


def test_absolute_paths_home_and_addresses_stay(tmp_path: Path):
    spec = load_spec(written(tmp_path, store="s3://bucket/runs", model="~/model"), ["data.path=/d"])
    assert spec.store == "s3://bucket/runs"
    assert spec.data.path == "/d"
    assert Path(spec.model) == Path.home() / "model"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "is not YAML"),
        (b"name: a\nseed: 1\nname: b\n", "the key 'name' stands twice (line 3)"),
        (b"{{ name }}", "is not YAML"),
        (b"name: a\nseed: 2020-99-99\n", "is not YAML"),
        (b"extends: ~nobody-at-all/x\n", "there is no such home folder"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"- a", "found a list"),
        (b"", "found nothing"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, content, said):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match="no spec at"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="is a folder"):
        load_spec(tmp_path)


def test_the_result_hash_leaves_out_what_decides_no_result():
    spec = small_spec()
    same = small_spec(
        name="other",
        store="elsewhere",
        execution={"shards": 4},
        limits={"attempts": 9},
        paper={"row": "SFT"},
    )
    assert spec.result_hash == same.result_hash
    assert spec_differences(spec, same) == []
    for change in (
        {"seed": 1},
        {"evolve": {"iterations": 3}},
        {"prompts": {"query": "{question}"}},
    ):
        assert small_spec(**change).result_hash != spec.result_hash


def test_differences_name_each_key_with_both_values():
    old = small_spec()
    new = small_spec(seed=5, evolve={"iterations": 3}, warm_up=None)
    found = dict(line.split(": ", 1) for line in spec_differences(old, new))
    assert found["seed"] == "0 -> 5"
    assert found["evolve.iterations"] == "2 -> 3"
    assert found["warm_up.per_query"] == "16 -> absent"
    assert not any(key.startswith(("evaluation", "prm.")) for key in found)


def test_a_spec_survives_its_own_json():
    spec = small_spec(evolve={"interval": "50%"}, execution={"deepspeed": {"processes": 2}})
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_a_group_that_is_given_in_part_keeps_what_its_place_sets():
    rate = {"optimization": {"learning_rate": 1e-5}}
    spec = parse_spec(LEAST | {"evolve": rate, "prm": rate})
    assert spec.evolve.optimization.warmup_steps == 1000
    assert spec.prm
    assert spec.prm.optimization.freeze == ("vision",)
    assert spec.prm.optimization.learning_rate == 1e-5
    none = {"optimization": {"warmup_steps": 0}}
    assert parse_spec(LEAST | {"evolve": none}).evolve.optimization.warmup_steps == 0


def test_a_controller_that_is_described_in_part_keeps_its_small_size():
    cluster = with_defaults({"controller": {"shm": "7Mi"}}, {"controller": {"scratch": "1Gi"}}, "x")
    found = cluster.controller
    assert (found.shm, found.scratch, found.resources.limits["memory"]) == ("7Mi", "1Gi", "512Mi")


@pytest.mark.parametrize(
    ("optimization", "said"),
    [
        ({"freeze": ["vision", "language", "embeddings"]}, "freeze names all of vision"),
        ({"lora": {"rank": 4}, "freeze": ["language"]}, "lora adapts the language model"),
    ],
)
@pytest.mark.parametrize("key", ["warm_up", "evolve"])
def test_training_that_could_change_nothing_is_refused(tmp_path, key, optimization, said):
    path = written(tmp_path, **{key: {"optimization": optimization}})
    with pytest.raises(SpecError, match=f"{key}.optimization.{said}"):
        load_spec(path)
    # A run that once failed by it stays readable.
    parse_spec(yaml.safe_load(path.read_text()))


def test_a_prm_may_learn_by_its_head_alone(tmp_path):
    frozen = {"freeze": ["vision", "language", "embeddings"]}
    assert load_spec(written(tmp_path, prm={"optimization": frozen})).prm
    adapted = {"optimization": frozen | {"lora": {"targets": ["q_proj"]}}}
    with pytest.raises(SpecError, match=r"prm\.optimization\.freeze"):
        load_spec(written(tmp_path, prm=adapted))


@pytest.mark.parametrize("text", ["2020-99-99", "9" * 5000, "{question}{options}", "a: b: c"])
def test_an_override_whose_value_is_no_yaml_says_to_quote_it(tmp_path: Path, text):
    with pytest.raises(SpecError, match="in quotes"):
        load_spec(written(tmp_path), [f"prompts.query={text}"])


@pytest.mark.parametrize("address", ["s3:/bucket/runs", "s3:bucket/runs", "https:/host/runs"])
def test_an_address_that_lacks_a_slash_becomes_no_folder(tmp_path: Path, address):
    with pytest.raises(SpecError, match="is no address"):
        load_spec(written(tmp_path), [f"store={address}"])
    with pytest.raises(SpecError, match="is no address"):
        open_store(address)
