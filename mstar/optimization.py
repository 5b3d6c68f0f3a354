"""How a train step optimises: the part of its task that phases of a spec set one by one."""

from typing import Literal, get_args

from pydantic import Field

from mstar.record import Record, is_false, is_none

Group = Literal["vision", "language", "embeddings"]


class Lora(Record):
    """Train low-rank adapters beside frozen weights: ``alpha / rank`` times their product is added to each weight.

    ``targets`` names the linear layers that get one by the end of their names (``q_proj``); None takes every linear
    layer of the language model but its output head. A group that ``freeze`` names gets none.
    """

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = Field(None, min_length=1)


class Optimization(Record):
    """One optimizer and its schedule: AdamW, constant learning rate after a linear warm-up of ``warmup_steps``.

    ``by_query`` shuffles queries in place of responses: those to one query come in one batch, where a PRM's training
    reads their image once. Without ``lora`` every weight is trained that ``freeze`` does not name.
    """

    learning_rate: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(0, ge=0)
    batch_size: int = Field(128, ge=1)
    epochs: int = Field(1, ge=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    freeze: tuple[Group, ...] = ()
    by_query: bool = Field(default=False, exclude_if=is_false)
    lora: Lora | None = Field(None, exclude_if=is_none)


def nothing_to_train(optimization: Optimization, *, head: bool) -> str | None:
    """Why nothing of any model could be trained so, None where something may be; ``head``: a PRM has one of its own."""
    lora, freeze = optimization.lora, optimization.freeze
    if set(freeze) == set(get_args(Group)) and (lora or not head):
        return (
            f"freeze names all of {', '.join(freeze)}, so there is nothing to train; leave one out"
        )
    if lora and lora.targets is None and "language" in freeze:
        return (
            "lora adapts the language model, which freeze names, so there is nothing to train; leave language out of "
            "freeze, or name lora.targets"
        )
    return None
