"""On how many devices a stage runs: a spec's execution, and its cluster block or this machine."""

from dataclasses import dataclass
from math import ceil

from mstar.cluster import STAGES, Stage, execution_of
from mstar.config import RunSpec
from mstar.execution import Execution
from mstar.optimization import Optimization


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One stage: ``pods`` start for a step, ``parallel`` at a time; each has ``devices``, of which ``used`` work.

    On one machine ``pods`` is 0: one process takes step after step. ``named`` says whether the spec names the devices.
    """

    execution: Execution
    pods: int
    parallel: int
    devices: int
    used: int
    named: bool = True

    @property
    def together(self) -> int:
        """Devices that are held at one time."""
        return self.parallel * self.devices

    @property
    def working(self) -> int:
        """Devices that are at work at one time."""
        return self.parallel * self.used

    @property
    def waves(self) -> int:
        """How often a place is given to a new pod, one after the other."""
        return ceil(self.pods / self.parallel) if self.pods else 0


def layouts(spec: RunSpec, *, local: bool) -> dict[Stage, Layout]:
    """Every stage of a run, in the cluster or on one machine."""
    return {stage: _layout(spec, stage, local=local) for stage in STAGES}


def _layout(spec: RunSpec, stage: Stage, *, local: bool) -> Layout:
    if local:
        execution = spec.execution
        ranks = execution.deepspeed.processes if stage == "train" and execution.deepspeed else 1
        return Layout(execution=execution, pods=0, parallel=1, devices=ranks, used=ranks)
    pod = spec.cluster.pod(stage)
    execution = execution_of(spec.execution, pod)
    held = pod.resources.gpus
    if stage == "train":
        nodes = spec.cluster.stages.train.nodes
        ranks = execution.deepspeed.processes if execution.deepspeed else 1
        # Ranks decide what trains; GPUs that a pod holds beyond them are paid for all the same.
        return Layout(
            execution=execution,
            pods=nodes,
            parallel=nodes,
            devices=max(held, ranks),
            used=ranks,
            named=held > 0,
        )
    pods = execution.shards if stage in {"generate", "score"} else 1
    parallel = min(pods, pod.parallelism or pods)
    # vLLM takes every GPU of its pod, or as many as it is told; transformers and the scorer take one.
    split, engines = engines_of(execution)
    sampling = stage in {"generate", "evaluate"} and execution.engine == "vllm"
    devices = max(held, split if sampling else 1)
    used = min(devices, split * (engines or devices // split)) if sampling else 1
    return Layout(
        execution=execution,
        pods=pods,
        parallel=parallel,
        devices=devices,
        used=used,
        named=held > 0,
    )


def engines_of(execution: Execution) -> tuple[int, int | None]:
    """GPUs that one vLLM engine is split over, and how many engines (None: as many as the GPUs make)."""
    if execution.engine != "vllm":
        return 1, 1
    return execution.vllm.tensor_parallel, execution.vllm.processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a model is trained. ``zero`` is None without DeepSpeed; ``lora`` a rank, None for the whole model."""

    ranks: int = 1
    zero: int | None = None
    micro_batch: int | None = None
    recomputed: bool = False
    offload: str = "none"
    lora: int | None = None
    lora_layers: tuple[str, ...] | None = None

    def rows(self, batch: int) -> int:
        """Rows that a rank holds at a time."""
        share = ceil(batch / self.ranks)
        return min(share, self.micro_batch or share)


def setup_of(execution: Execution, optimization: Optimization, nodes: int = 1) -> Setup:
    """What a spec asks of training."""
    deepspeed, lora = execution.deepspeed, optimization.lora
    return Setup(
        ranks=deepspeed.processes * nodes if deepspeed else nodes,
        zero=deepspeed.zero_stage if deepspeed else None,
        micro_batch=execution.micro_batch,
        recomputed=execution.gradient_checkpointing,
        offload=deepspeed.offload if deepspeed else "none",
        lora=lora.rank if lora else None,
        lora_layers=lora.targets if lora else None,
    )
