"""Trains with transformers and accelerate; DeepSpeed is a switch of the same path, not another one.

The optimizer and its schedule can be inherited from a checkpoint (continuous self-evolving, paper section 3.2):
segments joined by checkpoints compute what one uninterrupted run computes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from mstar.errors import DataError
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.optimization import Optimization
from mstar.stages.backends.checkpoint import (
    TrainerState,
    check_continues,
    read_state,
    same_layout,
)
from mstar.stages.backends.conversion import take_over
from mstar.stages.backends.encoding import EncodedRows, check_fits
from mstar.stages.backends.joining import open_accelerator, zero_stage
from mstar.stages.backends.keeping import Due, Keeper, Unfinished, check_same_plan
from mstar.stages.backends.losses import Diverged, Losses, stopped
from mstar.stages.backends.meter import Meter
from mstar.stages.backends.objectives import (
    Item,
    StepValueLoss,
    assemble,
    policy_item,
    value_item,
)
from mstar.stages.backends.order import plan_epoch, rank_shares, together, worth_sharing
from mstar.stages.backends.runtime import set_threads
from mstar.stages.backends.session import Session, open_session
from mstar.stages.backends.shared import can_share, on_device
from mstar.stages.backends.shortage import named_shortage, to_train
from mstar.stages.protocols import Progress, TrainingRow, TrainReport


class AccelerateTrainer:
    """Trains the model in ``model_dir``. For ``prm`` that is a completer, or a PRM to train on."""

    def __init__(
        self, objective: Literal["policy", "prm"], model_dir: Path, execution: Execution
    ) -> None:
        set_threads(execution)
        self.objective = objective
        self.execution = execution
        self.family = load_family(
            model_dir, max_pixels=execution.max_pixels, remote_code=execution.remote_code
        )

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
        try:
            with named_shortage("training", to_train(self.execution, optimization)):
                return self._train(
                    rows,
                    optimization,
                    seed=seed,
                    resume_from=resume_from,
                    save_to=save_to,
                    progress=progress,
                    stop_after=stop_after,
                    keeper=keeper,
                )
        finally:
            keeper.close()

    def _train(
        self,
        rows: Sequence[TrainingRow],
        optimization: Optimization,
        *,
        seed: int,
        resume_from: Path | None,
        save_to: Path,
        progress: Progress,
        stop_after: int | None,
        keeper: Keeper,
    ) -> TrainReport:
        encoded = EncodedRows(self.family, rows)
        items, content = self._items(encoded, keeper)
        batches = self._plan(items, encoded, optimization, seed)
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
        session, start = self._begin(accelerator, fresh, seed, resume_from, unfinished, save_to)
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
        losses = Losses(earlier)
        keeper.start()
        meter = Meter(accelerator.device, len(chosen) - len(earlier))
        try:
            for batch in chosen[len(earlier) :]:
                with meter.paused():
                    self._keep(keeper, session, state(len(losses)), losses)
                taken = [items[at] for at in batch]
                loss, norm = self._step(session, encoded, taken)
                losses.add(loss, norm, [item.name for item in taken])
                meter.step(loss, sum(item.length for item in taken))
                progress(len(batch))
            values = losses.all()
        except Diverged as error:
            keeper.finish()
            raise stopped(error, keeper.kept) from None
        end = state(len(losses))
        usage = meter.usage()
        keeper.finish()
        session.save(save_to, end)
        return TrainReport(
            losses=values,
            global_step=end.global_step,
            examples=sum(map(len, chosen)),
            tokens=sum(len(items[at].answer) for batch in chosen for at in batch),
            learning_rate=session.learning_rate,
            usage=usage,
        )

    def _begin(
        self,
        accelerator: Accelerator,
        fresh: TrainerState,
        seed: int,
        resume_from: Path | None,
        unfinished: Unfinished | None,
        save_to: Path,
    ) -> tuple[Session, TrainerState]:
        """A session, and where its training stands. An unfinished pass brings its own weights."""
        family, checkpoint = self.family, resume_from
        if unfinished:
            checkpoint = unfinished.folder
            # Adapters go on beside the weights that they began with.
            if not fresh.optimization.lora:
                family = load_family(
                    checkpoint / "model",
                    max_pixels=self.execution.max_pixels,
                    remote_code=self.execution.remote_code,
                )
        session = open_session(
            self.objective,
            accelerator,
            family,
            fresh.optimization,
            execution=self.execution,
            seed=seed,
            checkpoint=checkpoint,
        )
        start = read_state(checkpoint) if checkpoint else fresh
        if checkpoint:
            check_continues(checkpoint, start, fresh, session.files)
        if checkpoint and same_layout(start, fresh):
            session.load(checkpoint)
            return session, start
        if checkpoint:
            take_over(session, checkpoint, start, fresh, save_to.parent)
        set_seed(seed % 2**32, device_specific=session.world > 1)
        return session, start

    @staticmethod
    def _keep(
        keeper: Keeper,
        session: Session,
        state: TrainerState,
        losses: Losses,
    ) -> None:
        """Leave a checkpoint if one is due, and stop if that is. Every step before it is known to be finite."""
        keeper.shown.look(losses.known)
        due = keeper.due()
        if due is Due.NOTHING:
            return
        if len(losses):
            keeper.keep(session, state, losses.all())
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

    @staticmethod
    def _plan(
        items: Sequence[Item], encoded: EncodedRows, optimization: Optimization, seed: int
    ) -> list[list[int]]:
        lengths = [item.length for item in items]
        size = optimization.batch_size
        prompts = [encoded.key(item.row) for item in items] if optimization.by_query else None
        epochs = (
            plan_epoch(lengths, size, seed=seed, epoch=epoch, prompts=prompts)
            for epoch in range(optimization.epochs)
        )
        return list(itertools.chain.from_iterable(epochs))

    def _step(
        self, session: Session, encoded: EncodedRows, batch: Sequence[Item]
    ) -> tuple[torch.Tensor, torch.Tensor | float | None]:
        """One optimizer step; the mean loss over the whole batch's targets, on all ranks, and the gradient's norm."""
        accelerator = session.accelerator
        targets = sum(len(item.answer) for item in batch)
        total = torch.zeros((), device=accelerator.device)
        micro_batches, shared = self._cut(session, encoded, batch)
        for number, micro in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            # A rank without rows still takes part in the others' communication, with weight zero.
            taken = [batch[at] for at in micro or [0]]
            prompts = encoded.fetch([item.row for item in taken])
            inputs, answered, values = assemble(self.family, prompts, taken, shared=shared)
            accelerator.sync_gradients = last
            with nullcontext() if last else accelerator.no_sync(session.module):
                loss = session.module(
                    on_device(inputs, accelerator.device),
                    answered.to(accelerator.device),
                    values.to(accelerator.device),
                )
                loss = loss if micro else loss * 0
                # Gradients are averaged over ranks; the sum over ranks is what is wanted.
                accelerator.backward(loss * (session.world / targets))
            total += loss.detach()
        norm = session.step()
        mean: torch.Tensor = accelerator.reduce(total, reduction="sum") / targets
        return mean, norm

    def _cut(
        self, session: Session, encoded: EncodedRows, batch: Sequence[Item]
    ) -> tuple[list[list[int]], bool]:
        """The rank's micro-batches, as places in the batch, and whether each reads a prompt once for all its rows."""
        size, world = self.execution.micro_batch, session.world
        apart = rank_shares([[place] for place in range(len(batch))], world, size)
        module = session.accelerator.unwrap_model(session.module)
        if not isinstance(module, StepValueLoss) or not can_share(module.model.backbone):
            return apart[session.rank], False
        prompts = [encoded.key(item.row) for item in batch]
        grouped = rank_shares(together(prompts), world, size)
        shared = worth_sharing(
            itertools.chain.from_iterable(grouped),
            prompts,
            [item.prompt_length for item in batch],
            [len(item.answer) for item in batch],
        )
        return (grouped if shared else apart)[session.rank], shared


def _fingerprint(content: str, batches: Sequence[Sequence[int]]) -> str:
    """What must be equal for a pass to go on where it was left."""
    return hashlib.sha256(f"{content} {batches!r}".encode()).hexdigest()
