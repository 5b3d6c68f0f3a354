"""A page of samples of a data set: what is asked about which picture, what is right, and what the splits hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mstar.core.answers import LETTERS, canonical_answer
from mstar.core.seeds import derive_seed
from mstar.data.importing.records import Tally
from mstar.data.importing.wording import answer_kind
from mstar.data.splits import Sample, Split, parquet
from mstar.errors import DataError
from mstar.report.document import date, document
from mstar.report.figures import Section, absent, table
from mstar.report.markup import Html, el
from mstar.report.responses import picture_of
from mstar.report.scale import whole

NAMED = 6
"""Sources and kinds of answers that a cell names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A split with the samples drawn from it; ``sources`` are the samples', empty where they are not known."""

    name: str
    tally: Tally
    samples: Sequence[Sample]
    sources: Sequence[str]


def samples_page(folder: Path, splits: Sequence[Drawn], seed: int, *, now: float) -> str:
    """The page as text, with every picture inside; ``now`` is epoch seconds."""
    rows = [
        [
            split.name,
            whole(split.tally.rows),
            _shares(split.tally.types),
            _shares(split.tally.sources),
        ]
        for split in splits
    ]
    overview = Section(
        id="splits",
        title="What the splits hold",
        short="Splits",
        body=table(
            "Counted over all rows.",
            ["split", "questions", "answers", "taken from"],
            rows,
            class_="facts",
            label="Splits",
        ),
    )
    return document(
        f"M-STaR: samples of {folder.name}",
        _header(folder, splits, seed, now),
        [overview, *map(_section, splits)],
    )


def _header(folder: Path, splits: Sequence[Drawn], seed: int, now: float) -> Html:
    facts = {
        "Folder": str(folder),
        "Questions": whole(sum(split.tally.rows for split in splits)),
        "Seed of the draw": str(seed),
        "Written": date(now),
    }
    items = (el("div", el("dt", name), el("dd", text)) for name, text in facts.items())
    return el(
        "header",
        el("p", "M-STaR: self-evolving training for multimodal reasoning", class_="kicker"),
        el("h1", f"Samples of {folder.name}"),
        el("dl", items, class_="facts"),
    )


def _section(split: Drawn) -> Section:
    cards = [_card(*pair) for pair in zip(split.samples, split.sources, strict=True)]
    count = f"{len(cards)} of {whole(split.tally.rows)} questions, drawn at random."
    return Section(
        id=f"split-{split.name}",
        title=split.name,
        short=split.name,
        body=el("div", el("p", count, class_="note"), cards or absent("It is empty.")),
    )


def _card(sample: Sample, source: str) -> Html:
    query = sample.query
    right = canonical_answer(query.answer, query.options)
    options = [
        el(
            "li",
            f"{letter}  {text}",
            class_="true" if canonical_answer(letter, query.options) == right else None,
        )
        for letter, text in zip(LETTERS, query.options, strict=False)
    ]
    facts = [query.id, answer_kind(query.answer, query.options), *([source] if source else [])]
    return el(
        "article",
        _picture(sample),
        el(
            "div",
            el("h3", query.question),
            el("ul", options, class_="options") if options else None,
            el("p", "Answer: ", el("b", query.answer)),
            el("p", " · ".join(facts), class_="note"),
        ),
        class_="card",
    )


def _picture(sample: Sample) -> Html:
    try:
        picture = picture_of(sample)
    except (DataError, OSError) as error:
        return absent(f"No picture: {error}")
    return el(
        "img",
        src=picture.source,
        width=picture.width,
        height=picture.height,
        alt=f"The image of {sample.query.id}",
    )


def _shares(counts: Mapping[str, int]) -> str:
    """The most frequent first; many rare ones as one number."""
    total = sum(counts.values())
    named = list(counts.items())[:NAMED]
    shown = [f"{name} {count / total:.0%}" for name, count in named]
    if others := len(counts) - len(named):
        rest = total - sum(count for _, count in named)
        shown.append(f"{others} others {rest / total:.0%}")
    return ", ".join(shown) or "–"


def draw(split: Split, count: int, seed: int) -> Drawn:
    """``count`` rows of a split that ``seed`` draws, in their order; only their row groups are read whole."""
    total = split.rows()
    chosen = sorted(
        Random(derive_seed("samples", seed, split.name)).sample(range(total), min(count, total))
    )
    tally = Tally(rows=total)
    kinds: Counter[str] = Counter()
    sources: list[str] = []
    for file in split.files:
        opened = parquet(file)
        wanted = [
            name for name in ("answer", "options", "source") if name in opened.schema_arrow.names
        ]
        for batch in opened.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                kinds[answer_kind(str(row["answer"]), row.get("options") or ())] += 1
                sources.append(str(row.get("source") or ""))
    tally.types = dict(kinds.most_common())
    tally.sources = dict(Counter(filter(None, sources)).most_common())
    return Drawn(
        name=split.name,
        tally=tally,
        samples=list(split.read(chosen)),
        sources=[sources[index] for index in chosen],
    )
