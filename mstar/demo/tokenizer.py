"""The demo's tokenizer: a few hundred word pieces, any other text character by character.

Whole phrases of the demo's language (" top-left", " = 12") are single tokens, which keeps
responses short and so sampling fast. Characters outside the vocabulary fall back to UTF-8
bytes, so every text survives encoding and decoding unchanged.
"""

from __future__ import annotations

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mstar.demo.digits import CELL_NAMES
from mstar.demo.questions import MAX_VALUE

PAD = "<|endoftext|>"
BOS = "<|im_start|>"
EOS = "<|im_end|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"

SPECIAL_TOKENS: tuple[str, ...] = (PAD, BOS, EOS, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
"""The names that Qwen2-VL uses, so that stock processors and engines find them."""

_PHRASES = (
    *("Take", "Find", ", add", ", subtract", ", double it", ", plus", ", minus", ", then doubled"),
    *(" Options:", " Hint:", "Answer: \\boxed{", "}", ".\n", ".", ":", "\n"),
    *("Start with", "Add", "Subtract", "Double", "The", " is", ", so", "So", "Read", "Compute"),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: always the same vocabulary, in the same order, padding on the left."""
    pieces = _pieces()
    vocabulary: dict[str, int] = {}
    for token in (*SPECIAL_TOKENS, *pieces, *string.printable, *_byte_tokens()):
        vocabulary.setdefault(token, len(vocabulary))
    # `ignore_merges` makes a pre-token that is in the vocabulary one token; without merges, the
    # rest falls apart into characters.
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], ignore_merges=True, byte_fallback=True)
    )
    longest_first = sorted(pieces, key=len, reverse=True)
    pattern = Regex("|".join(re.escape(piece) for piece in longest_first))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=256,
    )


def _pieces() -> list[str]:
    numbers = range(MAX_VALUE + 1)
    pieces = [*_PHRASES, *CELL_NAMES]
    pieces += [f" {name}" for name in CELL_NAMES] + [f" {name}:" for name in CELL_NAMES]
    for form in ("{}", " {}", " + {}", " - {}", " = {}"):
        pieces += [form.format(number) for number in numbers]
    return pieces


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]
