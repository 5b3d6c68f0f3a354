"""A loss or gradient that is not finite ends training at that step, names its batch, and spoils no checkpoint."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.stages.backends import keeping
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.keeping import Keeper
from mstar.stages.backends.losses import Diverged, Losses, stopped
from mstar.stages.backends.session import Session
from mstar.stages.interim import Interim
from mstar.storage.memory import MemoryStore
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION, quiet
from tests.stages.steps import AtOnce

NAN, INF = float("nan"), float("inf")
STEP = "a" * 64


@pytest.mark.parametrize(
    ("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF), (1.0, -1.0)]
)
def test_the_first_step_that_is_not_finite_is_told_with_its_batch(loss, norm):
    losses = Losses([3.0])
    losses.add(torch.tensor(2.0), 1.0, ["q0/0"])
    with pytest.raises(Diverged) as found:
        losses.add(torch.tensor(loss), torch.tensor(norm), ["q1/0", "q2/3"])
    assert (found.value.step, found.value.batch) == (3, ("q1/0", "q2/3"))


def test_losses_come_in_order_after_those_of_earlier_attempts():
    losses = Losses([3.0, 2.0])
    losses.add(torch.tensor(1.5), None, [])
    assert len(losses) == 3
    assert losses.all() == (3.0, 2.0, 1.5)


def test_a_message_names_so_many_examples_and_the_log_all(caplog):
    names = [f"q{number}/0" for number in range(40)]
    told = str(stopped(Diverged(7, 1.0, NAN, names), 0))
    assert "the gradient of optimizer step 7 is not finite" in told
    assert "q15/0, and 24 more in the log" in told
    assert "q39/0" in caplog.text
    assert "at the beginning" in told
    assert "after optimizer step 5, the last good checkpoint" in str(
        stopped(Diverged(7, NAN, 1.0, ["q0/0"]), 5)
    )


def keeper_of(store, tmp_path):
    return Keeper(Interim(store, STEP, "1", tmp_path), 1e-9)


def train(model, keeper, tmp_path):
    return AccelerateTrainer("policy", model, Execution(device="cpu")).train(
        make_rows(40),
        OPTIMIZATION,
        seed=0,
        resume_from=None,
        save_to=tmp_path / "out",
        progress=quiet,
        keeper=keeper,
    )


def kept(store):
    """After which steps there are checkpoints, and the losses that each holds."""
    keys = sorted(
        key for key in store.list(f"steps/{STEP}/progress") if key.endswith("losses.json")
    )
    return [json.loads(store.get(key)) for key in keys]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(keeping, "ThreadPoolExecutor", AtOnce)


def test_training_stops_at_the_step_and_the_last_good_checkpoint_stays(
    tiny_model, tmp_path, monkeypatch, at_once
):
    """The fourth optimizer step finds a loss that is no number; a second attempt goes on and meets it again."""
    store = MemoryStore()
    real = AccelerateTrainer._step
    steps = []

    def step(self, session, encoded, batch):
        steps.append([item.name for item in batch])
        loss, norm = real(self, session, encoded, batch)
        return (loss * NAN if len(steps) in (4, 5) else loss), norm

    monkeypatch.setattr(AccelerateTrainer, "_step", step)
    with pytest.raises(ModelError, match=r"the loss of optimizer step 4 is nan") as first:
        train(tiny_model, keeper_of(store, tmp_path), tmp_path)
    assert len(steps) == 4
    assert all(name in str(first.value) for name in steps[3])
    assert "goes on after optimizer step 3, the last good checkpoint" in str(first.value)
    assert [len(losses) for losses in kept(store)] == [2, 3]
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=r"the loss of optimizer step 4 is nan"):
        train(tiny_model, keeper_of(store, tmp_path), tmp_path)
    assert steps[4] == steps[3]
    assert len(steps) == 5
    assert [len(losses) for losses in kept(store)] == [2, 3]


def test_weights_that_a_gradient_has_spoiled_are_never_kept(
    tiny_model, tmp_path, monkeypatch, at_once
):
    """The loss of the step is still a number; only its gradient tells."""
    store = MemoryStore()
    real = Session.step
    count = []

    def step(self):
        count.append(1)
        norm = real(self)
        return torch.tensor(INF) if len(count) == 3 else norm

    monkeypatch.setattr(Session, "step", step)
    with pytest.raises(ModelError, match=r"the gradient of optimizer step 3 is not finite"):
        train(tiny_model, keeper_of(store, tmp_path), tmp_path)
    assert [len(losses) for losses in kept(store)] == [1, 2]


def test_a_checkpoint_with_a_loss_that_is_not_finite_is_passed_over(
    tiny_model, tmp_path, monkeypatch, at_once, caplog
):
    """One that an earlier version may have left."""
    store = MemoryStore()
    real = AccelerateTrainer._step
    stop_at = [3]

    def step(self, session, encoded, batch):
        stop_at[0] -= 1
        if not stop_at[0]:
            raise KeyboardInterrupt
        return real(self, session, encoded, batch)

    monkeypatch.setattr(AccelerateTrainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model, keeper_of(store, tmp_path), tmp_path)
    monkeypatch.setattr(keeping, "math", SimpleNamespace(isfinite=lambda value: False))
    train(tiny_model, keeper_of(store, tmp_path), tmp_path)
    assert "a loss before it is not finite" in caplog.text


def test_a_model_of_broken_weights_saves_nothing(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    broken = load_file(folder / "model.safetensors")
    name = next(name for name in broken if name.endswith("embed_tokens.weight"))
    broken[name][20] = NAN
    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"optimizer step 1 is nan; .* nothing was saved"):
        train(folder, Keeper(), tmp_path)
    assert not (tmp_path / "out").exists()
