"""Where a run's curves go: the ``tracking`` block of a spec."""

from typing import Literal

from pydantic import Field, field_validator

from mstar.record import Record

Tracker = Literal["tensorboard", "wandb", "mlflow"]


class Tracking(Record):
    """Trackers that are told a run's curves, one tracker run for each run (docs/tracking.md).

    ``project`` is the Weights & Biases project and the MLflow experiment. Keys and addresses are no part of a spec:
    they come from the environment (``WANDB_API_KEY``, ``MLFLOW_TRACKING_URI``). An empty list tells nobody.
    """

    to: tuple[Tracker, ...] = ("tensorboard",)
    project: str = Field("mstar", min_length=1, max_length=128)

    @field_validator("to")
    @classmethod
    def _each_once(cls, to: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        return tuple(dict.fromkeys(to))

    @property
    def demanded(self) -> bool:
        """Whether somebody named the trackers, so that one that cannot be told is an error and no note."""
        return "to" in self.model_fields_set
