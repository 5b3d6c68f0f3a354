"""The phases before evolving: warm-up, PRM, and the baseline that needs neither."""

from collections.abc import Generator

from mstar.config import Prm, WarmUp
from mstar.plan.making import Tasks
from mstar.plan.records import Done, Part, Step, Verifier
from mstar.storage.manifest import Ref
from mstar.tasks import (
    AnswerExamples,
    GenerateTask,
    Label,
    Pairs,
    Prefixes,
    Sampling,
    Select,
    Slice,
    TrainTask,
)


class Phases(Tasks):
    """Each yields its steps and returns what later phases need."""

    def warm_up(self, warm: WarmUp) -> Generator[Step, Done, tuple[Ref, Ref]]:
        """The policy that evolving starts from, and what it learned from: its own rationales, or its teacher's."""
        responses = yield from self.generate(
            "warm-up/generate",
            self.writer,
            self.first_queries(warm.queries),
            warm.rollout,
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
            "warm-up/train",
            self.inputs.model,
            examples,
            warm.optimization,
            retokenize=self.spec.teacher is not None,
        )
        return policy, examples

    def teacher(self, warm: WarmUp, examples: Ref) -> Part:
        """The policy that the teacher's own warm-up ends with: the same task, so a run of the teacher's shares it."""
        seed = self.seed("warm-up/train")
        return (
            yield from self.train(
                "teacher/train", self.writer, examples, warm.optimization, seed=seed
            )
        )

    def prm(
        self, prm: Prm, start: Ref, warm_examples: Ref | None
    ) -> Generator[Step, Done, Verifier]:
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
            self.first_queries(prm.queries),
            rollout,
        )
        choose = Pairs(per_query=prm.per_query, limit=prm.pairs)
        pairs = yield from self.score("prm/pairs", responses, choose, None)
        completions = yield self.step(
            "prm/complete",
            GenerateTask(
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
        verified = yield self.step(
            "prm/verify", self.validation("prm/verify", start, trained, (1.0,), verify=True)
        )
        return Verifier(ref=trained, results=verified.results)

    def sft(self, base: Ref) -> Part:
        """The paper's baseline: one pass over the true answers, without reasoning."""
        name = "sft/train"
        split = self.spec.data.train
        done = yield self.step(
            name,
            TrainTask(
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
        yield self.step(
            name, self.validation(name, done.ref, None, self.spec.evaluation.temperatures)
        )
        return done.ref
