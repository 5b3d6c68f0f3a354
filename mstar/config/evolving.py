"""Self-evolving, axis by axis: method, schedule, selection, unlabeled queries, exploration. None knows another."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mstar.config.phases import Rollout, keeping
from mstar.core.exploration import temperature_grid
from mstar.core.rules import find_rule
from mstar.core.schedule import interval_parts
from mstar.methods import Method, find_method, methods
from mstar.optimization import Optimization
from mstar.record import Record
from mstar.tasks import Select

OPTIMIZATION = Optimization(warmup_steps=1000)


class Exploration(Record):
    """Adaptive exploration: every ``every`` iterations take the temperature that validation likes best (section 4.2).

    ``tune_on`` says by what: the paper's Reward-Pass@2, or its variant Pass@K, K the most that the evaluation measures.
    """

    every: int = Field(2, ge=1)
    lowest: float = Field(0.3, gt=0)
    highest: float = Field(1.6, gt=0)
    step: float = Field(0.1, gt=0)
    tune_on: Literal["reward_pass_at_2", "pass_at_k"] = "reward_pass_at_2"

    @model_validator(mode="after")
    def _grid_is_possible(self) -> Self:
        if self.lowest > self.highest:
            raise ValueError(
                f"lowest temperature {self.lowest} is above the highest, {self.highest}"
            )
        temperature_grid(self.lowest, self.highest, self.step)
        return self

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(temperature_grid(self.lowest, self.highest, self.step))


class Unlabeled(Record):
    """Mix in queries of another split, whose answers are not to be used (paper, section 3.4).

    ``labels``: ``vote`` takes the answer that a vote weighted by the PRM finds, and drops responses that conflict with
    it; ``oracle`` uses the true answers all the same, the paper's skyline. ``after`` is the share of training that is
    over before they enter; from then on half of an iteration's queries are unlabeled ones (the half is our choice).
    """

    split: str = "unlabeled"
    labels: Literal["oracle", "vote"] = "vote"
    after: float = Field(0.0, ge=0, lt=1)


class Evolve(Record):
    """Self-evolving training (paper, section 3.2). ``interval`` is the share of the queries an iteration passes.

    Its inverse is a whole number, so that intervals tile the queries.
    """

    method: str = Field("continuous", examples=sorted(methods()))
    iterations: int = Field(4, ge=1)
    interval: float = Field(0.25, gt=0, le=1)
    rollout: Rollout = Rollout()
    select: Select = Select(rule="top_k", k=2)
    unlabeled: Unlabeled | None = None
    exploration: Exploration | None = Exploration()
    optimization: Annotated[Optimization, keeping(OPTIMIZATION)] = OPTIMIZATION

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        find_method(name)
        return name

    @field_validator("interval", mode="before")
    @classmethod
    def _percent(cls, value: object) -> object:
        if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
            value = float(match[1]) / 100
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value <= 1:
            raise ValueError(
                "interval must be above 0 % and at most 100 % of the queries (0.25 or '25%')"
            )
        return value

    @field_validator("interval")
    @classmethod
    def _tiles(cls, interval: float) -> float:
        interval_parts(interval)
        return interval

    @model_validator(mode="after")
    def _possible(self) -> Self:
        select, taken = self.select, find_rule(self.select.rule).needs
        for name in ("k", "alpha"):
            if name not in taken and getattr(select, name) is not None:
                raise ValueError(
                    f"rule {select.rule} takes no {name}, but select.{name} is {getattr(select, name)}; "
                    "leave it out or set it to null"
                )
        if select.k is not None and select.k > self.rollout.samples:
            raise ValueError(
                f"select.k is {select.k}, but only rollout.samples = {self.rollout.samples} are drawn a query"
            )
        if self.unlabeled and self.how.learns_from == "answers":
            raise ValueError(
                f"method {self.method} learns from true answers alone, so unlabeled must be null"
            )
        return self

    @property
    def how(self) -> Method:
        """The method behind the name."""
        return find_method(self.method)

    @property
    def prm_for(self) -> tuple[str, ...]:
        """What asks the PRM, by key; empty when nothing does."""
        if self.how.learns_from == "answers":
            return ()
        asks = {
            f"evolve.select (rule {self.select.rule})": find_rule(self.select.rule).by_prm,
            "evolve.unlabeled (labels vote)": self.unlabeled and self.unlabeled.labels == "vote",
            "evolve.exploration (tune_on reward_pass_at_2)": self.exploration
            and self.exploration.tune_on == "reward_pass_at_2",
        }
        return tuple(key for key, asked in asks.items() if asked)

    @property
    def needs_prm(self) -> bool:
        """Whether anything asks the PRM."""
        return bool(self.prm_for)
