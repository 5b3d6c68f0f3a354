"""What every serialised record is, and when a field of it is left out."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of everything serialised here: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_none(value: object) -> bool:
    """A field of a later day: left out at its default, so that older tasks keep their hash."""
    return value is None


def is_false(value: object) -> bool:
    """The same for a field that is true or false."""
    return value is False
