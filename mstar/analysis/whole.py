"""The whole analysis of a run's PRM, from the store and, once, from the samples that it needs (paper, figure 2)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mstar.analysis.asking import Ask, sampling_task
from mstar.analysis.endpoint import Endpoint
from mstar.analysis.judging import Cost, Judging, Pairing
from mstar.analysis.making import Tell, made, note_step
from mstar.analysis.preferring import TOP, Preferring, ranked
from mstar.analysis.reading import (
    ROLLOUT_QUERIES,
    Asked,
    Generator,
    Rollout,
    groups,
    query_ids,
    questions,
    rollouts,
    scored_files,
)
from mstar.analysis.records import Analysis, Judgement, Missing, Source, Verification
from mstar.analysis.surviving import Surviving
from mstar.analysis.verifying import Verifying
from mstar.core.rules.threshold import choose_alpha
from mstar.core.seeds import derive_seed
from mstar.errors import MissingDependency
from mstar.executors.base import Executor
from mstar.history import Run, load_history, load_run
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.store import Store
from mstar.tasks import EvaluateTask

Watch = Callable[[str], AbstractContextManager[Tell]]
"""Opens a view of one phase's progress, by the phase's name."""

NO_GENERATOR = "relevance by the questions' generator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """An endpoint to ask about ``responses`` responses. ``confirm`` sees the cost first; what it returns is why not."""

    endpoint: Endpoint
    responses: int
    confirm: Callable[[Cost], str | None]


def analyse(
    store: Store,
    name: str,
    ask: Ask,
    *,
    executor: Callable[[], Executor],
    generator: Generator | None,
    judge: Judge | None,
    watch: Watch,
) -> Analysis:
    """Analyse the PRM of the run called ``name``; the samples are made by ``executor`` unless the store has them.

    Raises what a run's step may raise, and ``NotFound`` where the run has no PRM or has not come far enough. A judge
    that fails raises nothing: ``missing`` says what it did not say.
    """
    run, history = load_run(store, name), load_history(store, name)
    task = sampling_task(store, run, history, ask)
    with watch("sampling") as tell:
        manifest, adopted = made(
            store,
            name,
            task,
            executor,
            execution=run.spec.execution,
            attempts=run.spec.limits.attempts,
            tell=tell,
        )
    note_step(store, name, Ref.of(manifest))
    own = list(rollouts(store, history))
    with watch("counting") as tell, TemporaryDirectory(prefix="mstar-analysis-") as folder:
        reader = _Reader(store, run, ask, generator, Path(folder))
        verification, sampled, pairing = reader.samples(task, manifest)
        sources = [sampled]
        for done, found in enumerate(own, 1):
            tell(done, len(own) + 1, "tables")
            sources.append(reader.rollout(found))
    judgement, unjudged = _judged(store, judge, pairing, ask.seed, watch)
    return Analysis(
        run=name,
        policy=ask.policy,
        split=task.slice.split,
        queries=sampled.queries,
        samples=task.samples,
        temperature=task.temperatures[0],
        top=TOP,
        seed=ask.seed,
        step=manifest.id,
        adopted=adopted,
        verification=verification,
        sources=tuple(sources),
        judgement=judgement,
        missing=(*_absent(run, sources), *reader.missing, *unjudged),
    )


class _Reader:
    """Streams each source once; memory holds a few numbers a query, and two drawn pairs of the samples."""

    def __init__(
        self, store: Store, run: Run, ask: Ask, generator: Generator | None, scratch: Path
    ) -> None:
        self.missing: list[Missing] = []
        self._store = store
        self._run = run
        self._seed = ask.seed
        self._policy = ask.policy
        self._generator = generator
        self._scratch = scratch

    def samples(
        self, task: EvaluateTask, manifest: Manifest
    ) -> tuple[Verification, Source, Pairing]:
        """The PRM as a verifier, its preference, and pairs to judge, from the samples made for the analysis."""
        files = scored_files(self._store, manifest, self._scratch)
        split = task.slice.split
        known = self._questions(split, query_ids(files))
        verifying = Verifying(task.samples)
        preferring, surviving = Preferring(task.step_separator), Surviving()
        pairing = Pairing(seed=derive_seed(self._seed, "pairs"))
        count = 0
        for group in groups(files):
            if group[0].response.temperature == 0:
                verifying.add_greedy(group[0])
                continue
            asked = known[group[0].response.query_id]
            right = ranked(group)
            verifying.add(group, asked.query.options)
            preferring.add(right, asked.rate)
            surviving.add(group)
            pairing.add(asked.query, right)
            count += 1
        source = self._source(
            "samples",
            f"{task.samples} samples of {self._policy}, {split}",
            task.temperatures[0],
            count,
            preferring,
            surviving,
        )
        return verifying.result(derive_seed(self._seed, "verification")), source, pairing

    def rollout(self, found: Rollout) -> Source:
        """The PRM's preference among the rollouts that an iteration selected from."""
        files = scored_files(self._store, found.manifest, self._scratch)
        known = {}
        if self._generator:
            known = self._questions(found.task.split, query_ids(files, ROLLOUT_QUERIES))
        preferring, surviving = Preferring(found.task.step_separator), Surviving()
        count = 0
        for group in groups(files, ROLLOUT_QUERIES):
            asked = known.get(group[0].response.query_id)
            preferring.add(ranked(group), asked.rate if asked else None)
            surviving.add(group)
            count += 1
        label = f"rollouts of iteration {found.iteration}"
        name = f"iter-{found.iteration:02d}"
        return self._source(name, label, found.temperature, count, preferring, surviving)

    def _questions(self, split: str, wanted: set[str]) -> dict[str, Asked]:
        try:
            found = questions(self._store, self._run, split, wanted, self._scratch, self._generator)
        except MissingDependency as error:
            self._without_generator(str(error))
            return self._questions(split, wanted)
        if self._generator and any(asked.rate is None for asked in found.values()):
            self._without_generator(
                f"the questions of {split} are not, or not all, the teaching task's; name a judge with --judge"
            )
            found = {key: Asked(query=asked.query, rate=None) for key, asked in found.items()}
        return dict(found)

    def _without_generator(self, why: str) -> None:
        self._generator = None
        self.missing.append(Missing(what=NO_GENERATOR, why=why))

    def _source(
        self,
        name: str,
        label: str,
        temperature: float,
        queries: int,
        preferring: Preferring,
        surviving: Surviving,
    ) -> Source:
        accuracy = surviving.balanced_accuracy()
        return Source(
            name=name,
            label=label,
            temperature=temperature,
            queries=queries,
            compared=preferring.compared,
            survivable=surviving.queries,
            contrasts=preferring.result(derive_seed(self._seed, name)),
            survivals=surviving.result(),
            balanced_accuracy={f"{alpha:g}": value for alpha, value in accuracy.items()},
            alpha=choose_alpha(accuracy.items()) if accuracy else None,
        )


def _judged(
    store: Store, judge: Judge | None, pairing: Pairing, seed: int, watch: Watch
) -> tuple[Judgement | None, list[Missing]]:
    what = "relevance by a judge"
    if judge is None:
        return None, [
            Missing(what=what, why="no judge was named; --judge and --judge-model name one")
        ]
    pairs = pairing.drawn(judge.responses)
    if not pairs:
        return None, [Missing(what=what, why=f"no query has more than {TOP} right responses")]
    judging = Judging(store, judge.endpoint, pairs)
    cost = judging.cost()
    refusal = judge.confirm(cost) if cost.requests else None
    if refusal is None:
        with watch("judging") as tell:
            judging.ask(tell)
    return judging.result(seed, refusal)


def _absent(run: Run, sources: list[Source]) -> Iterator[Missing]:
    """What the run itself does not offer."""
    for source in sources:
        if not source.compared:
            yield Missing(
                what=f"Top-{TOP} against other right responses: {source.label}",
                why=f"no query has more than {TOP} right responses that the PRM scored",
            )
    if len(sources) == 1:
        yield Missing(
            what="the run's own rollouts",
            why=f"no iteration of run {run.name} asked the PRM about its rollouts (yet)",
        )
