"""How a question becomes the text of a prompt: the templates that the demo's recipe uses.

They are written down once, here, because the base model must be pre-trained on exactly the
prompts that the loop will send later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

QUERY_TEMPLATE = "{question}{options}"
"""The prompt of every phase but the warm-up's."""

HINTED_TEMPLATE = "{question}{options} Hint: {answer}"
"""The warm-up's prompt: the model sees the final answer and is asked for a rationale."""

OPTIONS_PREFIX = " Options:"
"""Comes before the options of a multiple-choice question; nothing does for a free-form one."""

OPTION_FORMAT = " {value}"
"""One option. An answer is the option's value, not a letter."""


def format_options(options: Sequence[str]) -> str:
    """Join the options as a prompt shows them; an empty string when there are none."""
    if not options:
        return ""
    return OPTIONS_PREFIX + "".join(OPTION_FORMAT.format(value=value) for value in options)


def format_prompt(question: str, options: Sequence[str], *, hint: str | None = None) -> str:
    """Return the user's text for a question, with the answer as a hint when one is given."""
    template = QUERY_TEMPLATE if hint is None else HINTED_TEMPLATE
    return template.format(question=question, options=format_options(options), answer=hint)
