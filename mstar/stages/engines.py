"""Which engine samples: the only place that knows their names."""

from pathlib import Path

from mstar.errors import MissingDependency
from mstar.execution import Execution
from mstar.stages.protocols import Sampler, StepScorer


def open_sampler(model: Path, execution: Execution) -> Sampler:
    """The sampler of ``execution.engine`` over a model folder; whoever opens it closes it."""
    try:
        if execution.engine == "vllm":
            from mstar.stages.backends.vllm_sampler import VllmSampler

            return VllmSampler(model, execution)
        from mstar.stages.backends.transformers_sampler import TransformersSampler
    except ModuleNotFoundError as error:
        raise missing(error) from None
    return TransformersSampler(model, execution)


def open_scorer(
    prm: Path, execution: Execution, separator: str, *, retokenize: bool = False
) -> StepScorer:
    """The step scorer over a PRM folder; with ``retokenize`` it reads texts that a model of another family wrote."""
    try:
        from mstar.stages.backends.transformers_scorer import TransformersScorer
    except ModuleNotFoundError as error:
        raise missing(error) from None
    return TransformersScorer(prm, execution, separator, retokenize=retokenize)


def missing(error: ModuleNotFoundError) -> MissingDependency:
    """What to install when a heavy package is not there."""
    return MissingDependency(
        f"this stage needs the package {error.name}, which is not installed; install mstar[train]"
    )
