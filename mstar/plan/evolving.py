"""Self-evolving: the spec's axes meet here, each asked for its own part and none for another's (section 3)."""

from collections.abc import Generator, Sequence

from mstar.config import Evolve, Exploration
from mstar.core.exploration import choose_temperature
from mstar.core.rules import find_rule
from mstar.core.rules.threshold import choose_alpha
from mstar.core.schedule import Turn
from mstar.errors import IntegrityError
from mstar.plan.phases import Phases
from mstar.plan.records import Done, Part, Step, Verifier
from mstar.storage.manifest import Ref
from mstar.tasks import OtherExamples, Select, Slice


class Plan(Phases):
    """The recipe's parts, with the spec at hand."""

    def evolve(self, evolve: Evolve, start: Ref, prm: Verifier | None) -> Part:
        """Generate, score, train, evaluate, as often as the schedule has turns."""
        select = _settled(evolve.select, prm)
        checkpoints, temperature = [start], evolve.rollout.temperature
        measured = self.spec.evaluation.temperatures
        for turn in self.turns:
            index, exploring = turn.number - 1, evolve.exploration
            if exploring and index % exploring.every:
                exploring = None
            grid = exploring.temperatures if exploring else measured
            evaluation = yield self.evaluated(index, checkpoints[-1], prm, grid)
            if exploring:
                temperature = self.explored(exploring, evaluation, temperature)
            trained = yield from self.iteration(turn, select, checkpoints, prm, temperature)
            checkpoints.append(trained)
        yield self.evaluated(len(self.turns), checkpoints[-1], prm, measured)
        return checkpoints[-1]

    def evaluated(
        self, index: int, policy: Ref, prm: Verifier | None, temperatures: tuple[float, ...]
    ) -> Step:
        name = f"iter-{index:02d}/evaluate"
        return self.step(
            name, self.validation(name, policy, prm.ref if prm else None, temperatures)
        )

    def explored(self, exploration: Exploration, found: Done, current: float) -> float:
        """The temperature that an evaluation of the whole grid speaks for."""
        most = str(max(self.spec.evaluation.pass_at, default=0))
        by_reward = exploration.tune_on == "reward_pass_at_2"
        points = [
            (
                point["temperature"],
                point["reward_pass_at_2"] if by_reward else point["pass_at"][most],
            )
            for point in found.results["sampled"]
        ]
        return choose_temperature(points, current)

    def iteration(
        self,
        turn: Turn,
        select: Select,
        checkpoints: Sequence[Ref],
        prm: Verifier | None,
        temperature: float,
    ) -> Part:
        """One turn: the newest policy answers, what is kept of it trains the weights that the method starts from."""
        evolve = self.spec.evolve
        phase = f"iter-{turn.number:02d}"
        ranked = prm.ref if prm and find_rule(select.rule).by_prm else None
        responses = yield from self.rollout(
            f"{phase}/generate", checkpoints[-1], self.train_slice(turn.labeled), temperature
        )
        examples = yield from self.score(f"{phase}/score", responses, select, ranked)
        also = None
        if turn.unlabeled:
            also = yield from self.unlabeled(phase, turn, select, checkpoints[-1], prm, temperature)
        inherited = None if turn.optimizer is None else checkpoints[turn.optimizer]
        return (
            yield from self.train(
                f"{phase}/train",
                checkpoints[turn.weights],
                examples,
                evolve.optimization,
                optimizer=inherited,
                also=also,
            )
        )

    def unlabeled(
        self,
        phase: str,
        turn: Turn,
        select: Select,
        policy: Ref,
        prm: Verifier | None,
        temperature: float,
    ) -> Generator[Step, Done, OtherExamples]:
        """The unlabeled half of a mixed iteration (paper, section 3.4)."""
        extra, data = self.spec.evolve.unlabeled, self.inputs.unlabeled
        assert extra
        assert data
        assert turn.unlabeled
        queries = Slice(
            split=extra.split,
            start=turn.unlabeled.start,
            count=turn.unlabeled.count,
            shuffle=self.seed("unlabeled order"),
        )
        responses = yield from self.rollout(
            f"{phase}/generate-unlabeled", policy, queries, temperature, data=data
        )
        votes = extra.labels == "vote"
        asked = prm.ref if prm and (votes or find_rule(select.rule).by_prm) else None
        score = yield from self.score(
            f"{phase}/score-unlabeled",
            responses,
            select,
            asked,
            labels="vote" if votes else None,
            data=data,
            split=extra.split,
        )
        return OtherExamples(data=data, score=score, split=extra.split)


def _settled(select: Select, prm: Verifier | None) -> Select:
    """The rule with every parameter that validation had to choose (paper, section 3.3)."""
    if select.alpha is not None or "alpha" not in find_rule(select.rule).needs:
        return select
    assert prm
    rows = prm.results.get("alphas")
    if not rows:
        raise IntegrityError(
            "prm/verify, adopted from an earlier version, has no table of alphas to choose from; "
            "give evolve.select.alpha, or run with fresh so that it is measured again"
        )
    alpha = choose_alpha((row["alpha"], row["balanced_accuracy"]) for row in rows)
    return select.model_copy(update={"alpha": alpha})
