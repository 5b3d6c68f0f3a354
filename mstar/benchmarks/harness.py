"""What benchmarks of VLMEvalKit's TSV files share: the prompt, and how a row becomes a question."""

from collections.abc import Mapping, Sequence

from mstar.benchmarks.records import Item
from mstar.benchmarks.tables import Row
from mstar.core.answers import LETTERS
from mstar.errors import DataError


def choice_prompt(question: str, options: Sequence[str], hint: str | None = None) -> str:
    """The harness's prompt: hint, question, lettered options, and to select one."""
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {question}")
    if options:
        lines.append("Options:")
        lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
        lines.append("Please select the correct answer from the options above. ")
    return "\n".join(lines) + "\n"


def choice_item(
    row: Row, options: Sequence[str], facets: Mapping[str, tuple[str, ...]], owner: str
) -> Item:
    """A question of a TSV row. Raises ``DataError`` when the answer is no option's letter."""
    answer = str(row["answer"]).strip()
    if len(options) < 2 or answer not in LETTERS[: len(options)] or len(answer) != 1:
        raise DataError(
            f"{owner}: answer {answer!r} is the letter of none of {len(options)} options (columns A, B, ...); "
            "is it a test file whose answers are kept secret?"
        )
    hint = row.get("hint")
    question = str(row["question"])
    return Item(
        id=str(row["index"]),
        prompt=choice_prompt(question, options, hint),
        question=f"{hint}\n{question}" if hint else question,
        answer=answer,
        options=tuple(options),
        facets=facets,
    )
