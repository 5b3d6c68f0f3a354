"""Whether trackers can be told from here: found out before any work, not after hours of it."""

import importlib.util
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mstar.config import Tracker, Tracking
from mstar.errors import MissingDependency, SpecError

EXTRAS: dict[Tracker, str] = {"tensorboard": "train", "wandb": "wandb", "mlflow": "mlflow"}
KEYLESS = frozenset({"offline", "disabled", "dryrun", "shared"})
"""What ``WANDB_MODE`` may be where no key is at hand."""


def to_tell(tracking: Tracking, environment: Mapping[str, str] = os.environ) -> Tracking:
    """The trackers that can be told; without any where nobody named TensorBoard and it is not installed.

    Raises ``MissingDependency`` (a package) and ``SpecError`` (an address, a key) for a tracker that the spec names.
    """
    lacking = [(tracker, package) for tracker in tracking.to if (package := _lacking(tracker))]
    if lacking and not tracking.demanded:
        return tracking.model_copy(update={"to": ()})
    for tracker, package in lacking:
        raise MissingDependency(
            f"tracking.to names {tracker}, but the package {package} is not installed here; install "
            f"mstar[{EXTRAS[tracker] if package == tracker else 'train'}], or leave {tracker} out of tracking.to"
        )
    if "mlflow" in tracking.to and not environment.get("MLFLOW_TRACKING_URI"):
        raise SpecError(
            "tracking.to names mlflow, but MLFLOW_TRACKING_URI is not set, which says where its server or folder is; "
            "set it (in a cluster: in the ConfigMap that cluster.env_config names), or leave mlflow out of tracking.to"
        )
    if "wandb" in tracking.to and not _has_key(environment):
        raise SpecError(
            "tracking.to names wandb, but there is no key for it: set WANDB_API_KEY (in a cluster: in the Secret that "
            "cluster.secret names), or WANDB_MODE=offline, or leave wandb out of tracking.to"
        )
    return tracking


def _lacking(tracker: Tracker) -> str | None:
    """The first package that telling this tracker needs and that is not here."""
    needed = ("torch", "accelerate", tracker)
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def _has_key(environment: Mapping[str, str]) -> bool:
    """Whether Weights & Biases would find a key without asking."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if environment.get("WANDB_MODE", "").lower() in KEYLESS:
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    path = Path(environment.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
