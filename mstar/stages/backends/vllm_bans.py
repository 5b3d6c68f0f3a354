"""Tokens that vLLM never draws. A module of its own: vLLM's processes import it by name, with vLLM at hand.

A bias of -100 on them would not hold at high temperatures, and a request's list of bad words costs a loop over rows and
words for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor
except ImportError:
    BASES: tuple[type, ...] = (LogitsProcessor,)
else:
    BASES = (LogitsProcessor, SecondProcessor)

NAME = f"{__name__}:Banning"
"""How vLLM is told of it."""


class _Banning:
    """A logits processor for either of vLLM's two model runners."""

    def __init__(self, config: Any, where: Any, *_: Any) -> None:
        """``where`` is a device, or the request states that know theirs."""
        asked = config.additional_config["mstar"]
        self.vocabulary: int = asked["vocabulary"]
        self.banned = torch.tensor(asked["banned"], device=getattr(where, "device", where))

    def apply(self, logits: torch.Tensor, *_: Any) -> torch.Tensor:
        # An embedding matrix padded beyond the tokenizer has rows that mean nothing.
        logits[:, self.vocabulary :] = -torch.inf
        return logits.index_fill_(1, self.banned, -torch.inf)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing depends on the rows."""


Banning = type("Banning", (_Banning, *BASES), {"__module__": __name__})


def asked(banned: Sequence[int], vocabulary: int) -> dict[str, Any]:
    """What an engine's ``additional_config`` holds for ``Banning``."""
    return {"mstar": {"banned": list(banned), "vocabulary": vocabulary}}
