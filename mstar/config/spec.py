"""The whole spec, and what contradicts across its keys."""

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from mstar.cluster import Cluster, execution_of
from mstar.config.evolving import Evolve
from mstar.config.phases import Data, Evaluation, Limits, Prm, Prompts, WarmUp
from mstar.config.tracking import Tracking
from mstar.execution import Execution, refusal
from mstar.record import Record
from mstar.storage.manifest import canonical_json, sha256
from mstar.tasks import AnswerCheck

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")

HOW = ("name", "store", "paper", "execution", "limits", "cluster", "tracking")
"""Keys that say where and how a run runs, or what it stands for, and do not decide what comes out."""


class Paper(Record):
    """Which row of the paper a recipe is, and the paper's accuracies in percent: MathV360K's test and MathVista."""

    table: int | None = Field(None, ge=1)
    row: str
    in_domain: float | None = Field(None, ge=0, le=100)
    mathvista: float | None = Field(None, ge=0, le=100)


class RunSpec(Record):
    """A whole run.

    ``fresh`` is any word: steps of runs with another word, or none, are not adopted, so everything is made anew.
    ``paper`` says for people which row of the paper a recipe is. ``teacher`` is a larger model: ``model`` learns from
    its warm-up data and its PRM in place of its own, as the paper's two small models do (section 4.2).
    """

    name: str
    seed: int = Field(0, ge=0)
    store: str = "runs"
    fresh: str | None = Field(None, min_length=1)
    paper: Paper | None = None
    data: Data
    model: str
    teacher: str | None = Field(None, min_length=1)
    prompts: Prompts = Prompts()
    answers: AnswerCheck = AnswerCheck()
    warm_up: WarmUp | None = WarmUp()
    prm: Prm | None = Prm()
    evolve: Evolve = Evolve()
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()
    tracking: Tracking = Tracking()

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"run name {name!r} must be 1 to 63 lower-case letters, digits, '-', '_' or '.', "
                "beginning and ending with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _prm_where_needed(self) -> Self:
        if self.prm is None and self.evolve.needs_prm:
            asking = " and ".join(self.evolve.prm_for)
            raise ValueError(
                f"prm is null, but a PRM is needed by {asking}; add prm, or choose what asks none: "
                "rule all, random, longest or shortest, unlabeled labels oracle, exploration null or tune_on pass_at_k"
            )
        return self

    @model_validator(mode="after")
    def _teacher_has_something_to_teach(self) -> Self:
        if self.teacher and self.evolve.how.learns_from == "answers":
            raise ValueError(
                f"method {self.evolve.method} learns from true answers alone, so teacher must be null"
            )
        if self.teacher and self.warm_up is None:
            raise ValueError(
                "warm_up is null, but a teacher teaches by its warm-up data; add warm_up, or set teacher to null"
            )
        return self

    @model_validator(mode="after")
    def _axes_fit_the_rest(self) -> Self:
        exploration, unlabeled = self.evolve.exploration, self.evolve.unlabeled
        if exploration and exploration.tune_on == "pass_at_k" and not self.evaluation.pass_at:
            raise ValueError(
                "evolve.exploration.tune_on is pass_at_k, but evaluation.pass_at is empty; name a K there"
            )
        used = (self.data.train, self.data.validation, self.data.test)
        if unlabeled and unlabeled.split in used:
            raise ValueError(
                f"evolve.unlabeled.split is {unlabeled.split!r}, which data already uses; unlabeled queries need a "
                "split of their own"
            )
        return self

    @model_validator(mode="after")
    def _training_is_possible(self) -> Self:
        how = execution_of(self.execution, self.cluster.pod("train"))
        for part in (self.warm_up, self.prm, self.evolve):
            if part and (why := refusal(how, part.optimization)):
                raise ValueError(why)
        return self

    @property
    def result_hash(self) -> str:
        """Hash of everything that decides the results; what ``HOW`` lists does not."""
        fields = self.model_dump(mode="json", exclude=set(HOW))
        return sha256(canonical_json(fields))
