"""Every recipe is a spec whose plan holds, says which row of the paper it is, and differs in that alone."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from mstarctl.recipes import Recipe, read_recipes

from mstar.config import RunSpec, load_spec
from mstar.plan import check_schedule
from mstar.recipe import follow, planned_names, planned_steps, recipe
from mstar.tasks import GenerateTask, ScoreTask, TrainTask, task_hash
from tests.runs import INPUTS, done, made_up

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
FILES = sorted(FOLDER.rglob("*.yaml"))
TRANSFER = ("transfer", "transfer-alone")
ROWS = [p for p in FILES if p.parent == FOLDER and p.stem not in {"teaching", *TRANSFER}]
QUERIES = {"train": 4800, "validation": 250, "test": 1000, "unlabeled": 4800}
TEACHING = replace(INPUTS, queries=QUERIES)
PAPER = replace(INPUTS, queries=QUERIES | {"train": 180_000, "unlabeled": 180_000})
SMALL = made_up("model", "small")
BASES = {"teaching.yaml", "paper/minicpm-v-2.5.yaml"}


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


@cache
def hashes(path: Path) -> dict[str, str]:
    """Every step of a recipe with its hash, each having found something."""
    spec = load_spec(path)
    inputs = TEACHING if path.parent == FOLDER else PAPER
    if spec.teacher or path.stem in TRANSFER:
        inputs = replace(inputs, model=SMALL, teacher=inputs.model if spec.teacher else None)
    found: dict[str, str] = {}
    program = recipe(spec, inputs)
    step = next(program, None)
    while step is not None:
        found[step.name] = task_hash(step.task)
        step = follow(program, step, done(step))
    assert list(found) == planned_names(spec, inputs)
    assert len(found) == planned_steps(spec)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_recipe_is_a_spec_named_after_its_file_whose_plan_holds(path):
    assert load_spec(path).name == path.stem
    assert hashes(path)


@pytest.mark.parametrize("path", [p for p in FILES if name(p) not in BASES], ids=name)
def test_a_recipe_says_at_its_head_which_row_of_the_paper_it_is(path):
    head = path.read_text(encoding="utf-8").splitlines()[0]
    paper = load_spec(path).paper
    assert paper
    if paper.table:
        assert head.startswith(f"# Table {paper.table}, ")
    for number in (paper.in_domain, paper.mathvista):
        assert number is None or str(number) in head


def test_every_row_of_the_paper_is_there():
    expected = {
        "sft", "iterative-rft", "rest-em",
        *(f"continuous-{share}" for share in ("100", "50", "25", "12-5", "6-25")),
        "random-2", "prm-threshold", "prm-top-1", "prm-top-2", "prm-top-4",
        "unlabeled-oracle", "unlabeled-oracle-prm",
        *(f"unlabeled-prm-{share}" for share in (0, 25, 50, 75)),
        "m-star", "m-star-pass-k", "longest-2", "shortest-2",
    }  # fmt: skip
    assert {path.stem for path in ROWS} == expected
    for path in ROWS:
        assert (FOLDER / "paper" / path.name).is_file()


@pytest.mark.parametrize("path", ROWS, ids=name)
def test_both_scales_are_the_same_row(path):
    """What the row is about is equal at both; sizes, intervals of fresh starts and budgets are not."""
    teaching, paper = load_spec(path), load_spec(FOLDER / "paper" / path.name)

    def axes(spec: RunSpec) -> object:
        select, exploration = spec.evolve.select, spec.evolve.exploration
        return (
            spec.paper,
            spec.evolve.method,
            (select.rule, select.k, select.alpha),
            spec.evolve.unlabeled,
            exploration and (exploration.every, exploration.tune_on),
        )

    assert axes(teaching) == axes(paper)


@pytest.mark.parametrize("path", ROWS, ids=name)
def test_every_teaching_row_takes_as_many_queries(path):
    spec = load_spec(path)
    turns = check_schedule(spec, QUERIES)
    taken = sum(t.labeled.count + (t.unlabeled.count if t.unlabeled else 0) for t in turns)
    assert taken == (0 if spec.evolve.method == "sft" else 4800)


@pytest.mark.parametrize("path", ROWS, ids=name)
def test_a_row_trains_a_prm_only_where_something_asks_it(path):
    asked = any(step.startswith("prm/") for step in hashes(path))
    assert asked == path.stem.startswith(
        ("prm-", "m-star", "unlabeled-prm", "unlabeled-oracle-prm")
    )


def test_the_teaching_rows_share_one_base_one_warm_up_and_one_prm():
    for step in ("base/test", "warm-up/train", "warm-up/test", "prm/train", "prm/verify"):
        assert len({found[step] for path in ROWS if step in (found := hashes(path))}) == 1


def test_rows_of_one_interval_that_differ_from_scoring_on_share_their_first_rollouts():
    rows = [
        *("continuous-25", "random-2", "prm-threshold", "prm-top-1", "prm-top-2", "prm-top-4"),
        *("longest-2", "shortest-2", "unlabeled-prm-25", "unlabeled-prm-75"),
    ]
    assert len({hashes(FOLDER / f"{row}.yaml")["iter-01/generate"] for row in rows}) == 1
    fresh = ("continuous-50", "iterative-rft", "rest-em")
    assert len({hashes(FOLDER / f"{row}.yaml")["iter-01/score"] for row in fresh}) == 1


@pytest.mark.parametrize(
    "name", ["transfer", "paper/m-star-phi-3.5-vision", "paper/m-star-internvl2-2b"]
)
def test_a_smaller_model_shares_warm_up_data_and_prm_with_m_star(name):
    path = FOLDER / f"{name}.yaml"
    mine, teacher = hashes(path), hashes(path.parent / "m-star.yaml")
    assert load_spec(path).teacher == load_spec(path.parent / "m-star.yaml").model
    assert mine["teacher/train"] == teacher["warm-up/train"]
    shared = {step for step in mine if mine[step] == teacher.get(step)}
    assert {"warm-up/generate", "warm-up/score", "prm/train", "prm/verify"} < shared
    assert all(step.startswith(("warm-up/", "prm/")) for step in shared)


def test_the_smaller_model_alone_differs_in_its_teacher_and_in_nothing_else():
    taught, alone = (load_spec(FOLDER / f"{name}.yaml") for name in TRANSFER)
    same = {"name": alone.name, "paper": alone.paper, "teacher": None}
    assert taught.model_copy(update=same) == alone
    assert taught.model == "demo:base?size=small"


@pytest.mark.parametrize("path", sorted((FOLDER / "paper").glob("*.yaml")), ids=name)
def test_the_paper_s_settings_are_the_paper_s(path):
    spec = load_spec(path)
    optimization = spec.evolve.optimization
    assert (optimization.learning_rate, optimization.batch_size) == (1e-6, 128)
    assert spec.evolve.rollout.samples == 16
    assert spec.evolve.rollout.temperature == 1.0
    assert spec.prm
    assert (spec.prm.queries, spec.prm.rollout.samples, spec.prm.completions) == (50_000, 16, 8)
    assert (spec.prm.per_query, spec.prm.pairs) == (4, 50_000)
    assert spec.warm_up
    assert spec.warm_up.limit == 100_000


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent != FOLDER and name(p) not in BASES], ids=name
)
def test_the_paper_s_rows_make_about_its_ten_thousand_steps_at_the_most(path):
    """No more than 10,000 by more than one iteration's share, whatever share of the responses is right."""
    spec = load_spec(path)
    evolve, select = spec.evolve, spec.evolve.select
    if evolve.method == "sft":
        assert evolve.optimization.warmup_steps == round(0.1 * 180_000 / 128)
        return
    steps = 0.0
    for turn in check_schedule(spec, PAPER.queries):
        for stretch in (turn.labeled, turn.unlabeled):
            most = stretch.count * (select.k or evolve.rollout.samples) if stretch else 0
            steps += min(most, select.limit or most) / 128
    assert 9_000 <= steps <= 10_000
    warm_ups = 1 if evolve.method == "continuous" else evolve.iterations
    assert evolve.optimization.warmup_steps * warm_ups == 1000


def test_the_page_about_recipes_lists_each_with_its_row_and_numbers():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if re.match(r"\| \[.*\]\(", line)]
    assert listed == [line_of(recipe) for recipe in read_recipes(FOLDER)]
    for path in (FOLDER / "paper").glob("m-star-*-*"):
        assert path.stem == "m-star-pass-k" or f"](paper/{path.name})" in page


def line_of(recipe: Recipe) -> str:
    stem = recipe.file.removesuffix(".yaml")
    table = "" if recipe.table is None else str(recipe.table)
    return f"| [{stem}]({recipe.file}) | {table} | {recipe.row} | {recipe.paper} | {recipe.what} |"


def test_only_the_axis_that_a_row_is_about_differs_from_continuous_25():
    usual = hashes(FOLDER / "continuous-25.yaml")
    for row in ("random-2", "longest-2", "shortest-2"):
        found = hashes(FOLDER / f"{row}.yaml")
        differing = [step for step, value in found.items() if usual[step] != value]
        assert differing[0] == "iter-01/score"


def test_a_walked_row_has_the_stages_its_axes_ask_for():
    spec = load_spec(FOLDER / "unlabeled-prm-50.yaml")
    program = recipe(spec, TEACHING)
    step = next(program, None)
    found: dict[str, list[str]] = {"generate": [], "score": [], "train": []}
    while step is not None:
        if step.name.startswith("iter-") and isinstance(
            step.task, GenerateTask | ScoreTask | TrainTask
        ):
            found[step.task.stage].append(step.name)
        step = follow(program, step, done(step))
    assert found["generate"] == [
        "iter-01/generate",
        "iter-02/generate",
        "iter-03/generate",
        "iter-03/generate-unlabeled",
        "iter-04/generate",
        "iter-04/generate-unlabeled",
    ]
    assert len(found["score"]) == len(found["generate"])
    assert len(found["train"]) == 4
