"""Trains with transformers and accelerate; DeepSpeed is a switch of the same path, not another one.

The optimizer and its schedule can be inherited from a checkpoint (continuous self-evolving, paper section 3.2):
segments joined by checkpoints compute what one uninterrupted run computes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from mstar.errors import DataError, ModelError
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.stages.backends.checkpoint import TrainerState, check_continues, read_state
from mstar.stages.backends.encoding import EncodedRows, check_fits
from mstar.stages.backends.keeping import Due, Keeper, Unfinished, check_same_plan
from mstar.stages.backends.objectives import (
    Item,
    assemble,
    policy_item,
    value_item,
)
from mstar.stages.backends.order import plan_epoch, rank_share
from mstar.stages.backends.runtime import set_threads
from mstar.stages.backends.session import Session, open_accelerator, open_session, zero_stage
from mstar.stages.protocols import Progress, TrainingRow, TrainReport
from mstar.tasks import Optimization


class AccelerateTrainer:
    """Trains the model in ``model_dir``. For ``prm`` that is a completer, or a PRM to train on."""

    def __init__(
        self, objective: Literal["policy", "prm"], model_dir: Path, execution: Execution
    ) -> None:
        set_threads(execution)
        self.objective = objective
        self.execution = execution
        self.family = load_family(model_dir, max_pixels=execution.max_pixels)

    def train(
        self,
        rows: Sequence[TrainingRow],
        optimization: Optimization,
        *,
        seed: int,
        resume_from: Path | None,
        save_to: Path,
        progress: Progress,
        stop_after: int | None = None,
        keeper: Keeper | None = None,
    ) -> TrainReport:
        """Train one pass an epoch over ``rows`` in an order that only ``seed`` and the epoch decide.

        ``keeper`` leaves checkpoints inside the pass and gives back the last one: the report is of the whole pass even
        then. ``Preempted`` is raised when it says that it is time to stop. ``stop_after`` ends after so many optimizer
        steps and leaves a checkpoint inside the pass; resuming from it, with the same rows and seed, finishes the pass.
        """
        keeper = keeper or Keeper()
        encoded = EncodedRows(self.family, rows)
        items, content = self._items(encoded, keeper)
        batches = self._plan(items, optimization, seed)
        accelerator = open_accelerator(self.execution, optimization)
        fresh = TrainerState(
            objective=self.objective,
            global_step=0,
            examples=0,
            plan=_fingerprint(content, batches),
            world_size=accelerator.num_processes,
            zero_stage=zero_stage(accelerator),
            optimization=optimization,
        )
        check_same_plan(fresh.plan)
        unfinished = keeper.find(fresh)
        earlier = unfinished.losses if unfinished else ()
        session, start = self._begin(accelerator, fresh, seed, resume_from, unfinished)
        chosen = batches[start.position - len(earlier) :][:stop_after]

        def state(done: int) -> TrainerState:
            """Where training stands after so many of the chosen batches."""
            fresh_ones = chosen[len(earlier) : done]
            position = start.position + len(fresh_ones)
            return fresh.model_copy(
                update={
                    "global_step": start.global_step + len(fresh_ones),
                    "examples": start.examples + sum(map(len, fresh_ones)),
                    "position": 0 if position == len(batches) else position,
                }
            )

        progress(sum(map(len, chosen[: len(earlier)])))
        losses: list[torch.Tensor | float] = list(earlier)
        keeper.start()
        for batch in chosen[len(earlier) :]:
            self._keep(keeper, session, state(len(losses)), losses)
            losses.append(self._step(session, encoded, [items[at] for at in batch]))
            progress(len(batch))
        end = state(len(losses))
        values = _finite(losses, end)
        session.save(save_to, end)
        return TrainReport(
            losses=values,
            global_step=end.global_step,
            examples=sum(map(len, chosen)),
            tokens=sum(len(items[at].answer) for batch in chosen for at in batch),
            learning_rate=session.learning_rate,
        )

    def _begin(
        self,
        accelerator: Accelerator,
        fresh: TrainerState,
        seed: int,
        resume_from: Path | None,
        unfinished: Unfinished | None,
    ) -> tuple[Session, TrainerState]:
        """A session, and where its training stands. An unfinished pass brings its own weights."""
        family, checkpoint = self.family, resume_from
        if unfinished:
            checkpoint = unfinished.folder
            family = load_family(unfinished.folder / "model", max_pixels=self.execution.max_pixels)
        session = open_session(self.objective, accelerator, family, fresh.optimization)
        if checkpoint is None:
            set_seed(seed % 2**32, device_specific=session.world > 1)
            return session, fresh
        start = read_state(checkpoint)
        check_continues(checkpoint, start, fresh, session.files)
        session.load(checkpoint)
        return session, start

    @staticmethod
    def _keep(
        keeper: Keeper,
        session: Session,
        state: TrainerState,
        losses: Sequence[torch.Tensor | float],
    ) -> None:
        """Leave a checkpoint if one is due, and stop if that is."""
        keeper.shown.look(losses)
        due = keeper.due()
        if due is Due.NOTHING:
            return
        if losses:
            keeper.keep(session, state, _finite(losses, state))
        if due is Due.STOP:
            raise keeper.stop(len(losses))

    def _items(self, encoded: EncodedRows, keeper: Keeper) -> tuple[list[Item], str]:
        """The rows that have anything to learn, and a digest of all of them."""
        make = policy_item if self.objective == "policy" else value_item
        digest = hashlib.sha256()
        kept: list[Item] = []
        for row, (example, prompt_length) in enumerate(encoded.read()):
            if keeper.asked_to_stop():
                raise keeper.stop(0)
            item = make(self.family, example, row, prompt_length)
            check_fits(self.family, example.query_id, prompt_length, len(item.answer))
            digest.update(repr((example.query_id, example.sample, item.answer)).encode())
            digest.update(repr(item.targets).encode())
            if item.answer:
                kept.append(item)
        if not kept:
            raise DataError(
                "there is nothing to train on: the step before kept no example with a response"
            )
        return kept, digest.hexdigest()

    def _plan(
        self, items: Sequence[Item], optimization: Optimization, seed: int
    ) -> list[list[int]]:
        lengths = [item.length for item in items]
        size = optimization.batch_size
        epochs = (
            plan_epoch(lengths, size, seed=seed, epoch=epoch)
            for epoch in range(optimization.epochs)
        )
        return list(itertools.chain.from_iterable(epochs))

    def _step(self, session: Session, encoded: EncodedRows, batch: Sequence[Item]) -> torch.Tensor:
        """One optimizer step; the mean loss over the whole batch's targets, on all ranks."""
        accelerator = session.accelerator
        targets = sum(len(item.answer) for item in batch)
        total = torch.zeros((), device=accelerator.device)
        for micro, last in _micro_batches(session, batch, self.execution.micro_batch):
            # A rank without rows still takes part in the others' communication, with weight zero.
            taken = micro or batch[:1]
            prompts = encoded.fetch([item.row for item in taken])
            inputs, answered, values = assemble(self.family, prompts, taken)
            inputs = {name: tensor.to(accelerator.device) for name, tensor in inputs.items()}
            accelerator.sync_gradients = last
            with nullcontext() if last else accelerator.no_sync(session.module):
                loss = session.module(
                    inputs, answered.to(accelerator.device), values.to(accelerator.device)
                )
                loss = loss if micro else loss * 0
                # Gradients are averaged over ranks; the sum over ranks is what is wanted.
                accelerator.backward(loss * (session.world / targets))
            total += loss.detach()
        session.step()
        mean: torch.Tensor = accelerator.reduce(total, reduction="sum") / targets
        return mean


def _micro_batches(
    session: Session, batch: Sequence[Item], size: int | None
) -> Iterator[tuple[list[Item], bool]]:
    shares = rank_share(range(len(batch)), session.rank, session.world, size)
    for number, share in enumerate(shares, start=1):
        yield [batch[index] for index in share], number == len(shares)


def _finite(losses: Sequence[torch.Tensor | float], state: TrainerState) -> tuple[float, ...]:
    """The losses up to ``state`` as numbers; ``ModelError`` if one is not."""
    values = [float(loss) for loss in losses]
    for step, value in enumerate(values, start=state.global_step - len(values) + 1):
        if not torch.isfinite(torch.tensor(value)):
            raise ModelError(
                f"the loss of optimizer step {step} is {value}; nothing was saved. Lower the learning rate, or train "
                "in float32."
            )
    return tuple(values)


def _fingerprint(content: str, batches: Sequence[Sequence[int]]) -> str:
    """What must be equal for a pass to go on where it was left."""
    return hashlib.sha256(f"{content} {batches!r}".encode()).hexdigest()
