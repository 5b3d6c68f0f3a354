"""What a stage says of a folder in the store or in its scratch space, in the words of whoever started the run."""

import re

from mstar.history import Run, load_history
from mstar.storage.manifest import Ref
from mstar.storage.store import Store


def in_own_words(message: str, run: Run, store: Store) -> str:
    """The message with the run's models called what the spec calls them, and other steps' by the step's name."""
    names: dict[Ref, str] = {
        entry.ref: f"step {entry.name}" for entry in load_history(store, run.name)
    }
    names[run.inputs.model] = run.spec.model
    if run.inputs.teacher and run.spec.teacher:
        names[run.inputs.teacher] = run.spec.teacher
    root = rf"(?:{re.escape(store.url)}|[^\s'\"]*)"
    for ref, name in names.items():
        place = rf"(?:(?:models|steps)/{ref.id}/[\w.-]*\w|artifacts/{ref.digest})"
        pieces = re.split(rf"{root}/{place}(?:/model\b(?!\.))?", message)
        message = name.join(pieces)
    return message
