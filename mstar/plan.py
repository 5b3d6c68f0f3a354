"""The recipe's parts: which tasks make a warm-up, a PRM, an iteration, a test, and what each passes on.

Steps carry no run name, and their seeds derive from the run's seed and the step's name. So two runs that differ only in
how they evolve ask for the same warm-up and the same PRM, and the second adopts what the first has committed.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from mstar.config import Evolve, Prm, RunSpec, WarmUp
from mstar.core.exploration import choose_temperature
from mstar.core.schedule import interval_count, iteration_slice
from mstar.core.seeds import derive_seed
from mstar.tasks import (
    AnswerExamples,
    EvaluateTask,
    GenerateTask,
    Label,
    Optimization,
    Pairs,
    Prefixes,
    Prompt,
    Queries,
    Ref,
    Sampling,
    ScoredExamples,
    ScoreTask,
    Select,
    Slice,
    Task,
    TrainTask,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run starts from: the data set and its number of queries by split, and the base model."""

    data: Ref
    queries: Mapping[str, int]
    model: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage, to be executed once. ``name`` is ``phase/what``, unique in the run."""

    name: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished step: its commit and what it found."""

    name: str
    ref: Ref
    results: Mapping[str, Any]


Part = Generator[Step, Done, Ref]


class Plan:
    """The recipe's parts, with the spec at hand. Each yields its steps and returns what later parts need."""

    def __init__(self, spec: RunSpec, inputs: Inputs) -> None:
        self.spec = spec
        self.inputs = inputs
        prompts = spec.prompts
        form = prompts.model_dump(include={"options_before", "option", "options_between"})
        self.query = Prompt(template=prompts.query, **form)
        self.hinted = Prompt(template=prompts.hinted, **form)

    def seed(self, name: str) -> int:
        return derive_seed(self.spec.seed, name)

    def available(self, split: str, wanted: int | None) -> int:
        return min(self.inputs.queries[split], wanted or self.inputs.queries[split])

    def warm_up(self, warm: WarmUp) -> Generator[Step, Done, tuple[Ref, Ref]]:
        responses = yield from self.generate(
            "warm-up/generate",
            self.inputs.model,
            self.train_slice(0, self.available(self.spec.data.train, warm.queries)),
            warm.rollout.samples,
            warm.rollout.temperature,
            warm.rollout.top_p,
            warm.rollout.max_new_tokens,
            prompt=self.hinted,
        )
        keep = Select(
            rule="all",
            per_query=warm.per_query,
            limit=warm.limit,
            min_steps=warm.min_steps,
            deduplicate=warm.deduplicate,
        )
        examples = yield from self.score("warm-up/score", responses, keep, None)
        policy = yield from self.train(
            "warm-up/train", self.inputs.model, examples, warm.optimization
        )
        return policy, examples

    def prm(self, prm: Prm, start: Ref, warm_examples: Ref | None) -> Part:
        """Completer, Monte Carlo rollouts, step labels, regression, and the PRM as a verifier."""
        completer = start
        if prm.completer_epochs and warm_examples and self.spec.warm_up:
            longer = self.spec.warm_up.optimization.model_copy(
                update={"epochs": prm.completer_epochs}
            )
            completer = yield from self.train(
                "prm/completer", start, warm_examples, longer, optimizer=start
            )
        rollout = prm.rollout
        responses = yield from self.generate(
            "prm/generate",
            completer,
            self.train_slice(0, self.available(self.spec.data.train, prm.queries)),
            rollout.samples,
            rollout.temperature,
            rollout.top_p,
            rollout.max_new_tokens,
        )
        choose = Pairs(per_query=prm.per_query, limit=prm.pairs)
        pairs = yield from self.score("prm/pairs", responses, choose, None)
        completions = yield Step(
            name="prm/complete",
            task=GenerateTask(
                model=completer,
                source=Prefixes(data=self.inputs.data, split=self.spec.data.train, responses=pairs),
                prompt=self.query,
                sampling=Sampling(
                    n=prm.completions,
                    temperature=prm.completion_temperature,
                    top_p=rollout.top_p,
                    max_new_tokens=rollout.max_new_tokens,
                ),
                step_separator=self.spec.prompts.step_separator,
                seed=self.seed("prm/complete"),
            ),
        )
        label = Label(pairs=pairs, held_out=prm.held_out)
        examples = yield from self.score("prm/label", completions.ref, label, None)
        trained = yield from self.train(
            "prm/train", completer, examples, prm.optimization, objective="prm"
        )
        yield Step(
            name="prm/verify",
            task=self.validation("prm/verify", start, trained, (1.0,), verify=True),
        )
        return trained

    def evolve(self, evolve: Evolve, start: Ref, prm: Ref | None) -> Part:
        """Generate, score, train, evaluate, ``iterations`` times."""
        total = self.inputs.queries[self.spec.data.train]
        count = interval_count(total, evolve.interval)
        policy, temperature = start, evolve.rollout.temperature
        for index in range(evolve.iterations + 1):
            exploring = evolve.exploration if index < evolve.iterations else None
            if exploring is None or index % exploring.every:
                exploring = None
            grid = exploring.temperatures if exploring else self.spec.evaluation.temperatures
            name = f"iter-{index:02d}/evaluate"
            evaluation = yield Step(name=name, task=self.validation(name, policy, prm, grid))
            if index == evolve.iterations:
                break
            if exploring:
                points = [
                    (p["temperature"], p["reward_pass_at_2"]) for p in evaluation.results["sampled"]
                ]
                temperature = choose_temperature(points, temperature)
            queries = self.train_slice(*iteration_slice(index + 1, count, total))
            policy = yield from self.iteration(
                index + 1, evolve, start, policy, prm, temperature, queries
            )
        return policy

    def iteration(
        self,
        index: int,
        evolve: Evolve,
        start: Ref,
        policy: Ref,
        prm: Ref | None,
        temperature: float,
        queries: Slice,
    ) -> Part:
        phase = f"iter-{index:02d}"
        responses = yield from self.generate(
            f"{phase}/generate",
            policy,
            queries,
            evolve.rollout.samples,
            temperature,
            evolve.rollout.top_p,
            evolve.rollout.max_new_tokens,
        )
        ranked = prm if evolve.select.rule in {"threshold", "top_k"} else None
        examples = yield from self.score(f"{phase}/score", responses, evolve.select, ranked)
        weights = start if evolve.method == "rest_em" else policy
        inherited = policy if evolve.method == "continuous" and index > 1 else None
        return (
            yield from self.train(
                f"{phase}/train", weights, examples, evolve.optimization, optimizer=inherited
            )
        )

    def sft(self, base: Ref) -> Part:
        """The paper's baseline: one pass over the true answers, without reasoning."""
        name = "sft/train"
        split = self.spec.data.train
        done = yield Step(
            name=name,
            task=TrainTask(
                model=base,
                data=self.inputs.data,
                examples=AnswerExamples(
                    slice=Slice(split=split), template=self.spec.prompts.sft_answer
                ),
                prompt=self.query,
                step_separator=self.spec.prompts.step_separator,
                optimization=self.spec.evolve.optimization,
                seed=self.seed(name),
            ),
        )
        name = "sft/evaluate"
        yield Step(
            name=name, task=self.validation(name, done.ref, None, self.spec.evaluation.temperatures)
        )
        return done.ref

    def train_slice(self, start: int, count: int) -> Slice:
        """Queries in an order that the run's seed decides and that every phase shares."""
        return Slice(
            split=self.spec.data.train, start=start, count=count, shuffle=self.seed("query order")
        )

    def generate(
        self,
        name: str,
        model: Ref,
        queries: Slice,
        samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        prompt: Prompt | None = None,
    ) -> Part:
        done = yield Step(
            name=name,
            task=GenerateTask(
                model=model,
                source=Queries(data=self.inputs.data, slice=queries),
                prompt=prompt or self.query,
                sampling=Sampling(
                    n=samples, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
                ),
                step_separator=self.spec.prompts.step_separator,
                seed=self.seed(name),
            ),
        )
        return done.ref

    def score(
        self, name: str, responses: Ref, action: Select | Pairs | Label, prm: Ref | None
    ) -> Part:
        done = yield Step(
            name=name,
            task=ScoreTask(
                data=self.inputs.data,
                split=self.spec.data.train,
                responses=responses,
                prm=prm,
                prompt=self.query,
                answers=self.spec.answers,
                step_separator=self.spec.prompts.step_separator,
                action=action,
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
    ) -> Part:
        done = yield Step(
            name=name,
            task=TrainTask(
                objective="prm" if objective == "prm" else "policy",
                model=model,
                optimizer=optimizer,
                data=self.inputs.data,
                examples=ScoredExamples(score=examples, split=self.spec.data.train),
                prompt=self.query,
                step_separator=self.spec.prompts.step_separator,
                optimization=optimization,
                seed=self.seed(name),
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
        yield Step(
            name=name,
            task=self.evaluation(name, model, None, queries, (evaluation.test_temperature,)),
        )

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
            seed=self.seed(name),
        )
