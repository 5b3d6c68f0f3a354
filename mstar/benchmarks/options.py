"""The rule by which VLMEvalKit reads a choice (``can_infer``), what a judge is asked for one, and what it may reply.

The rule is kept as it is, oddities included, since published numbers come from it; but for two. Where it and its judge
fail, the harness draws an option by chance, and here nothing is read. And it reads "answer is dark" as D; here what
follows must be a capital letter of its own.
"""

import re
from collections.abc import Mapping

from mstar.benchmarks.finals import final_answer, named_option
from mstar.benchmarks.records import Item
from mstar.core.answers import LETTERS

NONE = "Z"
"""The letter that stands for: it answers with none of the options."""

REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
FAILED = "Failed to obtain answer via API"

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_SAID = re.compile(r"(?i:answer\s+is)\s+\**([ABCD])(?![A-Za-z])")


def read_choice(item: Item, response: str) -> str | None:
    """The letter that a response chooses: of its final answer first, of all of it where that names none."""
    final = final_answer(response)
    if final is not None:
        letter = named_option(final, item.options) or infer(final, item)
        if letter:
            return letter
    return infer(response, item)


def infer(text: str, item: Item) -> str | None:
    """VLMEvalKit's rule on one text: a letter, ``NONE`` for a refusal, or None when it cannot tell.

    The only option letter among the words, if it is one of the last five; else "answer is X"; else the only option
    whose text occurs, in a text at most twice as long as all options.
    """
    choices = dict(zip(LETTERS, item.options, strict=False))
    return _infer_letter(text, choices) or _infer_text(text, choices)


def choice_is_right(item: Item, letter: str) -> bool:
    """Whether the letter that was read is the answer's."""
    return letter == item.answer


def ask_for_choice(item: Item, response: str) -> str:
    """What a judge is asked, where the rule cannot tell."""
    options = "\n".join(
        f"{letter}. {text}" for letter, text in zip(LETTERS, item.options, strict=False)
    )
    return (
        "Below are a multiple-choice question and somebody's response to it. Which option does the response choose? "
        "Do not solve the question. Reply with the option's letter alone, or with Z if the response chooses none of "
        f"the options.\n\nQuestion:\n{item.question}\n\nOptions:\n{options}\n\nResponse:\n{response}\n\nLetter:"
    )


def hear_choice(item: Item, reply: str) -> str | None:
    """The one letter that a judge replied, or None."""
    found = re.fullmatch(r"\W*([A-Za-z])\W*", reply)
    letter = found[1].upper() if found else infer(reply, item)
    return letter if letter and letter in item.letters + NONE else None


def _infer_letter(text: str, choices: Mapping[str, str]) -> str | None:
    if FAILED in text:
        return None
    if any(refusal in text for refusal in REFUSALS):
        return NONE
    words = text.translate(_SEPARATORS).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and NONE in words:
        return NONE
    said = _SAID.search(text)
    return said[1] if said and said[1] in choices else None


def _infer_text(text: str, choices: Mapping[str, str]) -> str | None:
    text = text.lower()
    if len(text) > 2 * sum(map(len, choices.values())):
        return None
    named = [letter for letter, option in choices.items() if option.lower() in text]
    return named[0] if len(named) == 1 else None
