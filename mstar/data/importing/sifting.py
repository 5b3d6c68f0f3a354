"""Rows are checked and written aside as they come; of each a few numbers and its id stay in memory."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mstar.core.answers import canonical_answer, unusable_answer
from mstar.data.importing.gallery import Gallery, Seen
from mstar.data.importing.records import Reason, Row, Skipped
from mstar.data.importing.wording import KINDS, answer_kind

SHOWN = 5
"""Rows that the report names for each reason; the list of problems has all."""


class Problems:
    """The rows that are left out: all of them in a file, counted by reason, the first few remembered."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._file = path.open("w", encoding="utf-8")

    def add(self, row: Skipped) -> None:
        self.counts[row.reason] += 1
        shown = self.examples.setdefault(row.reason, [])
        if len(shown) < SHOWN:
            shown.append(f"{row.id}: {row.detail}")
        line = {"id": row.id, "reason": row.reason, "detail": row.detail}
        self._file.write(json.dumps(line, ensure_ascii=True) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class Sifted:
    """The rows that can be used so far, by number: what each asks and answers, as numbers to compare by."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.read = 0
        self.sources: list[str] = []
        self.start = array("Q")
        self.image = array("I")
        self.kind = array("B")
        self.source = array("I")
        self._question = array("Q")
        self._answer = array("Q")

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Iterable[Row | Skipped], gallery: Gallery, problems: Problems) -> None:
        """Write all rows aside that can be used, and ask for their images."""
        ids: dict[str, int] = {}
        sources: dict[str, int] = {}
        offset = 0
        with self.spool.open("wb") as file:
            for row in rows:
                self.read += 1
                if isinstance(row, Skipped):
                    problems.add(row)
                    continue
                question, answer = clean(row.question), clean(row.answer)
                options = tuple(map(clean, row.options))
                why = unusable_answer(answer, options) if question else "the question is empty"
                if why:
                    reason = Reason.UNUSABLE_ANSWER if question else Reason.MALFORMED
                    problems.add(Skipped(id=row.id, reason=reason, detail=why))
                    continue
                name = clean(row.id)
                ids[name] = seen = ids.get(name, 0) + 1
                name = name if seen == 1 else f"{name}#{seen}"
                kind = KINDS.index(answer_kind(answer, options))
                line = [name, clean(row.name), question, options, answer, clean(row.source), kind]
                text = json.dumps(line).encode() + b"\n"
                self.start.append(offset)
                self.image.append(gallery.ask(row.image))
                self.kind.append(kind)
                self.source.append(sources.setdefault(row.source, len(sources)))
                asked = [" ".join(question.split()).casefold(), *options]
                self._question.append(_number("\0".join(asked)))
                self._answer.append(_number(canonical_answer(answer, options)))
                file.write(text)
                offset += len(text)
        self.sources = list(sources)

    def line(self, file: Any, row: int) -> list[Any]:
        """A row as it was written aside: id, image's name, question, options, answer, source, kind."""
        return read_line(file, self.start[row])

    def settle(self, seen: Sequence[Seen], problems: Problems) -> dict[str, list[int]]:
        """Rows by the picture they ask about: none with a bad image, none that another contradicts, no repeats."""
        groups: dict[str, list[int]] = {}
        with self.spool.open("rb") as file:
            for row, number in enumerate(self.image):
                image = seen[number]
                if image.problem:
                    reason = Reason.MISSING_IMAGE if image.missing else Reason.BROKEN_IMAGE
                    self._leave_out(file, row, reason, image.problem, problems)
                else:
                    groups.setdefault(image.digest, []).append(row)
            for digest, rows in groups.items():
                groups[digest] = list(self._consistent(file, rows, problems))
        return {digest: rows for digest, rows in groups.items() if rows}

    def _consistent(self, file: Any, rows: list[int], problems: Problems) -> Iterator[int]:
        answers: dict[int, dict[int, int]] = {}
        for row in rows:
            answers.setdefault(self._question[row], {}).setdefault(self._answer[row], row)
        for row in rows:
            found = answers[self._question[row]]
            if len(found) > 1:
                detail = "asked about the same image elsewhere, with another answer"
                self._leave_out(file, row, Reason.CONFLICT, detail, problems)
            elif found[self._answer[row]] != row:
                first = self.line(file, found[self._answer[row]])[0]
                self._leave_out(file, row, Reason.REPEATED, f"as {first}", problems)
            else:
                yield row

    def _leave_out(
        self, file: Any, row: int, reason: Reason, detail: str, problems: Problems
    ) -> None:
        query, image, _, _, answer, *_ = self.line(file, row)
        more = f"answer {answer!r}, {detail}" if reason is Reason.CONFLICT else detail
        problems.add(Skipped(id=query, reason=reason, detail=f"{image}: {more}" if more else image))

    def leave_over(self, rows: Iterable[int], problems: Problems) -> None:
        """Count rows of an image that another split has."""
        with self.spool.open("rb") as file:
            for row in rows:
                self._leave_out(file, row, Reason.LEFT_OVER, "", problems)


def read_line(file: Any, start: int) -> list[Any]:
    """The row that a spool has at ``start``."""
    file.seek(start)
    found: list[Any] = json.loads(file.readline())
    return found


def clean(text: str) -> str:
    """Text that can be stored: without halves of characters, which JSON may hold and no file can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def counted(names: Mapping[int, str] | Sequence[str], values: Iterable[int]) -> dict[str, int]:
    """How often each value is there, by its name, most frequent first."""
    return {names[value]: count for value, count in Counter(values).most_common()}


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
