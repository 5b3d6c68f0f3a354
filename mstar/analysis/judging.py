"""Relevance of the PRM's Top-k against other right responses, by a judge (paper, section 3.3 and figure 2c).

A query gives up to two pairs, each of one response of the Top-k and one of the others. What a judge said is kept in
the store under a hash of all that it was asked, so that nothing is asked twice, whoever asks and whatever interrupts.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mstar.analysis.endpoint import Endpoint, JudgeFailed, JudgeRefused
from mstar.analysis.preferring import TOP, contrast
from mstar.analysis.records import Judgement, Missing
from mstar.analysis.rubric import REPLY_TOKENS, messages, prompt_tokens, read_score
from mstar.core.metrics import mean
from mstar.core.records import Query, Scored
from mstar.core.seeds import derive_seed, unit
from mstar.errors import NotFound
from mstar.storage import keys
from mstar.storage.manifest import canonical_json, sha256
from mstar.storage.parallel import in_parallel
from mstar.storage.store import Store

AT_ONCE = 4
GIVE_UP = 8
"""Failures in a row after which the judge is not asked any more."""

KEPT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two right responses to one query: one that the PRM prefers, one that it does not."""

    query: Query
    top: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What asking would take. Token counts are estimates; the reply's is the most that it may have."""

    requests: int
    cached: int
    prompt_tokens: int
    reply_tokens: int


@dataclass(kw_only=True)
class Pairing:
    """Draws pairs while the responses stream past; memory holds two pairs a query."""

    seed: int
    top: int = TOP
    _rounds: tuple[list[tuple[float, Pair]], ...] = field(default_factory=lambda: ([], []))

    def add(self, query: Query, right: Sequence[Scored]) -> None:
        """The right responses of one query, best first."""
        tops = self._drawn(right[: self.top], "top")
        others = self._drawn(right[self.top :], "other")
        for found, top, other in zip(self._rounds, tops, others, strict=False):
            place = unit(self.seed, "query", query.id)
            found.append((place, Pair(query=query, top=top, other=other)))

    def drawn(self, responses: int) -> list[Pair]:
        """Pairs of about so many responses: one of each query, in an order that the seed decides, then second ones."""
        ordered = (
            pair
            for found in self._rounds
            for _, pair in sorted(found, key=lambda item: (item[0], item[1].query.id))
        )
        return [pair for _, pair in zip(range(responses // 2), ordered, strict=False)]

    def _drawn(self, items: Sequence[Scored], purpose: str) -> list[str]:
        found = [item.response for item in items]
        found.sort(key=lambda r: unit(self.seed, purpose, r.query_id, r.sample, r.seed))
        return [response.text for response in found]


class Judging:
    """One judge over some pairs, with the store as its memory."""

    def __init__(self, store: Store, endpoint: Endpoint, pairs: Sequence[Pair]) -> None:
        self._store = store
        self._endpoint = endpoint
        self._pairs = pairs
        self._requests = {
            _text(pair, text): endpoint.request(messages(pair.query, text))
            for pair in pairs
            for text in (pair.top, pair.other)
        }
        names = {text: self._identity(request) for text, request in self._requests.items()}
        known = in_parallel(lambda item: (item[0], self._remembered(item[1])), names.items())
        self._scores = {text: score for text, score in known if score is not None}
        self._names = names
        self._cached = len(self._scores)
        self._asked = 0
        self._failures: Counter[str] = Counter()
        self._stopped = ""

    def cost(self) -> Cost:
        """What is still to be asked."""
        to_ask = [r for text, r in self._requests.items() if text not in self._scores]
        return Cost(
            requests=len(to_ask),
            cached=self._cached,
            prompt_tokens=sum(prompt_tokens(request["messages"]) for request in to_ask),
            reply_tokens=REPLY_TOKENS * len(to_ask),
        )

    def ask(self, tell: Callable[[int, int, str], None]) -> None:
        """Ask what is not known yet, a few at once; ends early when the judge refuses or is down for good."""
        to_ask = [text for text in self._requests if text not in self._scores]
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            row = 0
            for start in range(0, len(to_ask), AT_ONCE):
                tell(start, len(to_ask), "responses")
                for outcome in pool.map(self._one, to_ask[start : start + AT_ONCE]):
                    row = self._count(outcome, row)
                if row >= GIVE_UP:
                    self._stopped = f"it was given up after {row} failures in a row"
                if self._stopped:
                    break
        except BaseException:
            self._endpoint.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def result(self, seed: int, refusal: str | None) -> tuple[Judgement, list[Missing]]:
        """What the judge said of the pairs that it judged whole, and what is missing.

        ``refusal`` is why it was not asked at all, None when it was.
        """
        by_query: dict[str, list[tuple[float, float]]] = {}
        for pair in self._pairs:
            scores = [self._scores.get(_text(pair, text)) for text in (pair.top, pair.other)]
            if scores[0] is not None and scores[1] is not None:
                by_query.setdefault(pair.query.id, []).append((scores[0], scores[1]))
        means = [
            (mean([top for top, _ in found]), mean([other for _, other in found]))
            for found in by_query.values()
        ]
        total = len(self._requests)
        judgement = Judgement(
            model=self._endpoint.model,
            responses=total,
            cached=self._cached,
            asked=self._asked,
            judged=len(self._scores),
            contrast=contrast(means, derive_seed(seed, "judge")) if means else None,
        )
        return judgement, list(self._missing(total, refusal))

    def _missing(self, total: int, refusal: str | None) -> Iterator[Missing]:
        lacking = total - len(self._scores)
        if not lacking:
            return
        what = f"{lacking} of {total} judgements of relevance"
        reasons = [f"{count} times {why}" for why, count in self._failures.most_common(3)]
        found = refusal or "; ".join(filter(None, [self._stopped, *reasons]))
        yield Missing(what=what, why=f"the judge {self._endpoint.model}: {found}")

    def _count(self, outcome: JudgeFailed | JudgeRefused | None, row: int) -> int:
        """Note how a question went; the failures in a row up to it."""
        if outcome is None:
            return 0
        if isinstance(outcome, JudgeRefused):
            self._stopped = f"it was not asked again, because {outcome}"
        else:
            self._failures[str(outcome)] += 1
        return row + 1

    def _one(self, text: str) -> JudgeFailed | JudgeRefused | None:
        try:
            reply = self._endpoint.reply(self._requests[text], lambda r: read_score(r) is not None)
        except (JudgeFailed, JudgeRefused) as error:
            return error
        score = read_score(reply)
        assert score is not None, "reply() gives a usable one"
        body = {"model": self._endpoint.model, "score": score, "reply": reply[:KEPT_CHARACTERS]}
        self._store.put(keys.verdict(self._names[text]), (json.dumps(body) + "\n").encode())
        self._scores[text] = score
        self._asked += 1
        return None

    def _identity(self, request: Mapping[str, Any]) -> str:
        return sha256(canonical_json({"url": self._endpoint.url, "request": request}))

    def _remembered(self, identity: str) -> float | None:
        try:
            score = json.loads(self._store.get(keys.verdict(identity)))["score"]
        except (NotFound, ValueError, KeyError, TypeError):
            return None  # never asked, or damaged: it is asked again, and written anew
        return float(score) if isinstance(score, int | float) else None


def _text(pair: Pair, text: str) -> str:
    """What tells one response of a sample from another: equal responses to a query are asked about once."""
    return f"{pair.query.id}\n{text}"
