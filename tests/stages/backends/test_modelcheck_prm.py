"""The checks of a PRM's folder: well with a sound one, and each fails on the fault that it exists for."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar.errors import ModelError
from mstar.models.family import load_family
from mstar.models.prm import HEAD_FILE, MARKER_FILE, load_reward_model, save_head
from mstar.stages.backends.modelcheck import rewarding
from mstar.stages.backends.modelcheck.examination import Wanted, examine
from mstar.stages.backends.modelcheck.finding import Check, Fault, make
from mstar.stages.backends.modelcheck.rewarding import RewardPatient
from mstar.stages.backends.transformers_scorer import TransformersScorer
from tests.stages.backends.patients import ON_CPU, Blind, CountingPadding, NoMask
from tests.tiny import build_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = build_tiny_model(tmp_path_factory.mktemp("prm"))
    made = load_reward_model(load_family(path), dtype=torch.float32, device=CPU, fresh_head=True)
    save_head(made.head.state_dict(), path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def scoring_with(family):
    """A way to open a scorer that reads prompts with another family."""

    def open_scorer(path, execution):
        scorer = TransformersScorer(path, execution)
        scorer.family = family(path, max_pixels=execution.max_pixels)
        return scorer

    return open_scorer


def admitted(folder, family=None):
    options = {} if family is None else {"open_scorer": scoring_with(family)}
    patient = RewardPatient(path=folder, execution=ON_CPU, **options)
    rewarding.head(patient)
    return patient


def test_a_prm_that_is_well_passes_every_check(folder):
    findings = list(examine(Wanted(prm=folder, device="cpu", max_pixels=1 << 20)))
    assert [finding.what for finding in findings if not finding.ok] == []
    assert "6 steps of 3 responses" in findings[1].found


def test_a_model_without_a_head_and_no_folder_at_all_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"is not a PRM: it has no prm\.json"):
        admitted(build_tiny_model(tmp_path / "policy"))
    with pytest.raises(Fault, match="there is no folder"):
        admitted(tmp_path / "nowhere")


def test_a_head_of_another_size_is_refused(copy):
    save_file({"weight": torch.ones(1, 7), "bias": torch.ones(1)}, copy / HEAD_FILE)
    with pytest.raises(ModelError, match="head"):
        admitted(copy)


@pytest.mark.parametrize("marker", ["{", json.dumps({"format": "other"})])
def test_a_marker_of_another_format_is_a_fault_and_no_traceback(copy, marker):
    (copy / MARKER_FILE).write_text(marker)
    patient = RewardPatient(path=copy, execution=ON_CPU)
    assert make(Check(what="prm", look=rewarding.head), patient, set()).ok is False


def test_nan_in_the_head_is_named(copy):
    held = load_file(copy / HEAD_FILE)
    held["weight"][0, 0] = float("nan")
    save_file(held, copy / HEAD_FILE)
    with pytest.raises(Fault, match=r"1 tensors hold NaN.*head\.weight"):
        admitted(copy)


def test_scores_that_depend_on_the_batch_are_a_fault(folder):
    with pytest.raises(Fault, match="together and alone they differ"):
        rewarding.scores(admitted(folder, NoMask))


def test_a_scorer_that_reads_positions_as_the_trainer_does_not_is_a_fault(folder):
    patient = admitted(folder, CountingPadding)
    with pytest.raises(Fault, match="together and alone they differ"):
        rewarding.scores(patient)
    with pytest.raises(Fault, match="scorer and trainer differ"):
        rewarding.trained_forward(patient)


def test_a_prm_that_does_not_see_the_picture_is_a_fault(folder):
    patient = admitted(folder, Blind)
    rewarding.scores(patient)
    with pytest.raises(Fault, match="inverted pictures"):
        rewarding.picture_judged(patient)
