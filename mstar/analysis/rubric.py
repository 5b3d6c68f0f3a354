"""How a judge is asked for a response's relevance, and how its reply is read (paper, section 3.3 and appendix E).

The paper's own wording is not published with it; this rubric is ours.
"""

import re
from collections.abc import Sequence

from mstar.core.records import Query

LOWEST, HIGHEST = 1, 10
REPLY_TOKENS = 300
CHARACTERS_A_TOKEN = 4
"""About; an estimate of cost needs no more."""

INSTRUCTIONS = f"""\
You rate how relevant a solution's reasoning is to the question it answers. The question is about a picture, which you \
do not see; take what the solution reads from it as right. The final answer is right: do not rate that.

Rate from {LOWEST} to {HIGHEST}:
{HIGHEST}: every step is needed to answer this question; nothing is repeated, beside the point or made up.
7: all needed, but for a step or two that say little.
4: some steps belong to the question, others have nothing to do with it or contradict each other.
{LOWEST}: the steps have nothing to do with the question.

First say in at most two sentences which steps are beside the point. Then end with one line of its own: \
Score: <a whole number from {LOWEST} to {HIGHEST}>"""

_SCORE = re.compile(
    r"^\W*score(?:\s*\(1\W+10\))?\W{0,6}(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line of its own, as was asked for; a number elsewhere in the reply is not the score."""


def messages(query: Query, response: str) -> list[dict[str, str]]:
    """The conversation that asks about one response."""
    options = f"\nOptions: {'; '.join(query.options)}" if query.options else ""
    asked = f"Question:\n{query.question}{options}\n\nSolution:\n{response}"
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": asked}]


def read_score(reply: str) -> float | None:
    """The score that a reply ends with; None when it holds none from 1 to 10."""
    found = _SCORE.findall(reply)
    score = float(found[-1]) if found else None
    return score if score is not None and LOWEST <= score <= HIGHEST else None


def prompt_tokens(conversation: Sequence[dict[str, str]]) -> int:
    """About how many tokens a conversation has."""
    characters = sum(len(message["content"]) for message in conversation)
    return -(-characters // CHARACTERS_A_TOKEN)
