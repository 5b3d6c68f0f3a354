"""Making tasks: what a step of each stage is asked, given the spec."""

from collections.abc import Generator
from typing import Literal

from mstar.config import Rollout, RunSpec
from mstar.core.schedule import Stretch
from mstar.core.seeds import derive_seed
from mstar.optimization import Optimization
from mstar.plan.records import Done, Inputs, Part, Step, check_schedule
from mstar.storage.manifest import Ref
from mstar.tasks import (
    BenchmarkTask,
    EvaluateTask,
    GenerateTask,
    Label,
    OtherExamples,
    Pairs,
    Prompt,
    Queries,
    Sampling,
    ScoredExamples,
    ScoreTask,
    Select,
    Slice,
    Task,
    TrainTask,
)


class Tasks:
    """Writes tasks for a spec: each method yields one step and returns what later ones need of it."""

    def __init__(self, spec: RunSpec, inputs: Inputs) -> None:
        self.spec = spec
        self.inputs = inputs
        self.turns = check_schedule(spec, inputs.queries)
        prompts = spec.prompts
        form = prompts.model_dump(include={"options_before", "option", "options_between"})
        self.query = Prompt(template=prompts.query, **form)
        self.hinted = Prompt(template=prompts.hinted, **form)

    def seed(self, name: str) -> int:
        return derive_seed(self.spec.seed, name)

    def step(self, name: str, task: Task) -> Step:
        fresh = self.spec.fresh
        return Step(name=name, task=task.model_copy(update={"salt": fresh}) if fresh else task)

    @property
    def writer(self) -> Ref:
        """The base model whose warm-up data and PRM the run learns from: the teacher's, or its own."""
        if self.spec.teacher is None:
            return self.inputs.model
        assert self.inputs.teacher
        return self.inputs.teacher

    def foreign(self, prm: Ref | None) -> bool:
        """Whether a PRM that is asked about the policy's responses is another model's."""
        return prm is not None and self.spec.teacher is not None

    def available(self, split: str, wanted: int | None) -> int:
        return min(self.inputs.queries[split], wanted or self.inputs.queries[split])

    def train_slice(self, stretch: Stretch) -> Slice:
        """Queries in an order that the run's seed decides and that every phase shares."""
        return Slice(
            split=self.spec.data.train,
            start=stretch.start,
            count=stretch.count,
            shuffle=self.seed("query order"),
        )

    def first_queries(self, wanted: int | None) -> Slice:
        return self.train_slice(
            Stretch(start=0, count=self.available(self.spec.data.train, wanted))
        )

    def rollout(
        self,
        name: str,
        policy: Ref,
        queries: Slice,
        temperature: float,
        *,
        data: Ref | None = None,
    ) -> Part:
        how = self.spec.evolve.rollout.model_copy(update={"temperature": temperature})
        return (yield from self.generate(name, policy, queries, how, data=data))

    def generate(
        self,
        name: str,
        model: Ref,
        queries: Slice,
        rollout: Rollout,
        *,
        prompt: Prompt | None = None,
        data: Ref | None = None,
    ) -> Part:
        done = yield self.step(
            name,
            GenerateTask(
                model=model,
                source=Queries(data=data or self.inputs.data, slice=queries),
                prompt=prompt or self.query,
                sampling=Sampling(
                    n=rollout.samples,
                    temperature=rollout.temperature,
                    top_p=rollout.top_p,
                    max_new_tokens=rollout.max_new_tokens,
                ),
                step_separator=self.spec.prompts.step_separator,
                seed=self.seed(name),
            ),
        )
        return done.ref

    def score(
        self,
        name: str,
        responses: Ref,
        action: Select | Pairs | Label,
        prm: Ref | None,
        *,
        labels: Literal["vote"] | None = None,
        data: Ref | None = None,
        split: str | None = None,
    ) -> Part:
        done = yield self.step(
            name,
            ScoreTask(
                data=data or self.inputs.data,
                split=split or self.spec.data.train,
                responses=responses,
                prm=prm,
                prompt=self.query,
                answers=self.spec.answers,
                step_separator=self.spec.prompts.step_separator,
                action=action,
                labels=labels,
                retokenize=self.foreign(prm),
                seed=self.seed(name),
            ),
        )
        return done.ref

    def train(
        self,
        name: str,
        model: Ref,
        examples: Ref,
        optimization: Optimization,
        *,
        optimizer: Ref | None = None,
        objective: str = "policy",
        also: OtherExamples | None = None,
        retokenize: bool = False,
        seed: int | None = None,
    ) -> Part:
        """``retokenize`` when another model wrote the examples; ``seed`` None is the one that the name gives."""
        done = yield self.step(
            name,
            TrainTask(
                objective="prm" if objective == "prm" else "policy",
                model=model,
                optimizer=optimizer,
                data=self.inputs.data,
                examples=ScoredExamples(score=examples, split=self.spec.data.train),
                also=also,
                prompt=self.query,
                step_separator=self.spec.prompts.step_separator,
                optimization=optimization,
                retokenize=retokenize,
                seed=self.seed(name) if seed is None else seed,
            ),
        )
        return done.ref

    def validation(
        self,
        name: str,
        model: Ref,
        prm: Ref | None,
        temperatures: tuple[float, ...],
        *,
        verify: bool = False,
    ) -> EvaluateTask:
        data, evaluation = self.spec.data, self.spec.evaluation
        count = self.available(data.validation, evaluation.queries)
        return self.evaluation(
            name, model, prm, Slice(split=data.validation, count=count), temperatures, verify=verify
        )

    def test(self, phase: str, model: Ref) -> Generator[Step, Done, None]:
        """Greedy accuracy and Pass@K on the test split, where the spec has one."""
        split, evaluation = self.spec.data.test, self.spec.evaluation
        if split is None:
            return
        count = self.available(split, evaluation.test_queries)
        name = f"{phase}/test"
        queries = Slice(split=split, count=count)
        yield self.step(
            name,
            self.evaluation(name, model, None, queries, (evaluation.test_temperature,)),
        )

    def benchmarks(self, phase: str, model: Ref) -> Generator[Step, Done, None]:
        """Scores on public benchmarks, where the spec has any."""
        asked, files = self.spec.evaluation.benchmarks, self.inputs.benchmarks
        if asked is None or (phase == "base" and not asked.base):
            return
        assert files
        task = BenchmarkTask(
            data=files,
            benchmarks=asked.names,
            model=model,
            prompt=self.query if asked.prompt == "run" else None,
            max_new_tokens=asked.max_new_tokens,
        )
        yield self.step(f"{phase}/benchmarks", task)

    def evaluation(
        self,
        name: str,
        model: Ref,
        prm: Ref | None,
        queries: Slice,
        temperatures: tuple[float, ...],
        *,
        verify: bool = False,
    ) -> EvaluateTask:
        evaluation = self.spec.evaluation
        return EvaluateTask(
            data=self.inputs.data,
            slice=queries,
            model=model,
            prm=prm,
            prompt=self.query,
            answers=self.spec.answers,
            step_separator=self.spec.prompts.step_separator,
            greedy=not verify,
            temperatures=temperatures,
            samples=evaluation.samples,
            max_new_tokens=self.spec.evolve.rollout.max_new_tokens,
            pass_at=evaluation.pass_at,
            verify=verify,
            # Verified it is on responses of the policy that it came from.
            retokenize=self.foreign(prm) and not verify,
            seed=self.seed(name),
        )
