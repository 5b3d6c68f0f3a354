"""Whether a model folder opens in transformers alone: its configuration and its processor, without its weights."""

import json
from pathlib import Path

from mstar.errors import ModelError


def open_folder(folder: Path) -> None:
    """``ModelError`` when transformers cannot open the folder. Code that a folder brings along is not run."""
    from transformers import AutoConfig, AutoProcessor

    if "auto_map" in json.loads((folder / "config.json").read_bytes()):
        return
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
        AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"the checkpoint does not open in transformers ({type(error).__name__}: {reason}); it was not exported"
        ) from error
