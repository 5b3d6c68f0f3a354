"""Where and how a run's pods run on Kubernetes: the ``cluster`` block of a spec.

None of it changes results, so none of it is part of a run's or a step's identity. A chart's ``mstar-defaults`` holds
the same block; what a spec says comes first.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from mstar import __version__
from mstar.errors import SpecError
from mstar.execution import Execution
from mstar.mistakes import mistakes
from mstar.record import Record

Stage = Literal["generate", "score", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("generate", "score", "train", "evaluate")
IMAGES: dict[str, str] = {
    "generate": "generator",
    "score": "scorer",
    "train": "trainer",
    "evaluate": "evaluator",
    "controller": "controller",
}
"""Which image runs what."""

GPU = "nvidia.com/gpu"
"""What a pod asks for when its block says nothing of GPUs, and its engine needs some."""


def _matching(pattern: str, longest: int, form: str) -> AfterValidator:
    """Text that the cluster would take, so that a slip is found on the laptop."""
    wanted = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > longest or not wanted.fullmatch(text):
            raise ValueError(f"{text!r} should be {form}")
        return text

    return AfterValidator(check)


_INNER = "lower-case letters, digits and '-'{}, beginning and ending with a letter or digit"
ObjectName = Annotated[
    str,
    _matching(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", 253, "1 to 253 " + _INNER.format(" or '.'")),
]
Namespace = Annotated[
    str, _matching(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "1 to 63 " + _INNER.format(""))
]
_PLACE = r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*"
Registry = Annotated[
    str, _matching(_PLACE, 255, "a registry, for example registry.example:5000/ml")
]
Image = Annotated[
    str,
    _matching(
        _PLACE + r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        512,
        "an image, for example registry.example/trainer:1.2",
    ),
]
_QUANTITY = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+|m|k|[KMGTPE]i?)?")


def _quantity(value: object) -> object:
    """A Kubernetes quantity; YAML reads ``cpu: 2`` as a number."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text):
        raise ValueError(f"{value!r} is no quantity; expected for example 500m, 2, 16Gi")
    return text


class Resources(Record):
    """What a container asks for and may use at most, in Kubernetes quantities (``cpu: 500m``, ``memory: 16Gi``)."""

    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)

    @field_validator("requests", "limits", mode="before")
    @classmethod
    def _quantities(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {name: _quantity(value) for name, value in values.items()}

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def gpus(self) -> int:
        """GPUs of any maker that one pod holds."""
        held = (value for name, value in self.limits.items() if name.endswith("/gpu"))
        return sum(int(float(value)) for value in held if value.replace(".", "", 1).isdecimal())


class Pod(Record):
    """The pods of one stage.

    ``patch`` is laid over the pod (``metadata`` and ``spec``) last, as ``kubectl patch --type strategic`` does it.
    ``execution`` overrides keys of the spec's own ``execution`` for this stage.
    """

    image: Image | None = None
    resources: Resources = Resources()
    shm: str = "1Gi"
    scratch: str = "20Gi"
    parallelism: int | None = Field(None, ge=1)
    patch: dict[str, Any] = Field(default_factory=dict)
    execution: dict[str, Any] = Field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @field_validator("shm", "scratch", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        return _quantity(value)

    @field_validator("patch")
    @classmethod
    def _patches_a_pod(cls, patch: dict[str, Any]) -> dict[str, Any]:
        if unknown := patch.keys() - {"metadata", "spec"}:
            raise ValueError(
                f"a pod's patch holds metadata and spec, not {', '.join(sorted(unknown))}; "
                "for example {spec: {nodeSelector: {gpu: h100}}}"
            )
        return patch


class TrainPod(Pod):
    """The trainer's pods: a gang of ``nodes`` of them, each with ``execution.deepspeed.processes`` ranks."""

    nodes: int = Field(1, ge=1)


class Stages(Record):
    """One block a stage."""

    generate: Pod = Pod()
    score: Pod = Pod()
    train: TrainPod = TrainPod()
    evaluate: Pod = Pod()


class Images(Record):
    """Where images come from: ``<registry>/mstar-<image>:<tag>``."""

    registry: Registry = "localhost"
    tag: str = Field(__version__, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: tuple[ObjectName, ...] = ()


class Queue(Record):
    """A Kueue LocalQueue, and the class that says how urgent the run is.

    ``controller`` queues the controller's Job too: needed where Kueue manages Jobs that name no queue.
    """

    name: ObjectName
    priority_class: ObjectName | None = None
    controller: bool = False


def _controller_pod() -> Pod:
    small = Resources(
        requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "1", "memory": "512Mi"}
    )
    return Pod(resources=small, shm="64Mi", scratch="256Mi")


class Cluster(Record):
    """Everything about the cluster that a run may choose.

    ``pending_seconds`` is how long pods may wait for a place or a quota before the run stops (None: for ever; a run
    that stopped goes on with ``resume``); ``start_seconds`` the same for an image that cannot be pulled or a container
    that cannot be made.
    """

    namespace: Namespace | None = None
    images: Images = Images()
    service_account: ObjectName = "mstar-stage"
    controller_service_account: ObjectName = "mstar-controller"
    secret: ObjectName | None = "mstar-s3"  # noqa: S105 - its name
    env_config: ObjectName | None = "mstar-env"
    queue: Queue | None = None
    priority_class: ObjectName | None = None
    ttl_seconds: int = Field(86_400, ge=0)
    pending_seconds: float | None = Field(None, gt=0)
    start_seconds: float = Field(600, gt=0)
    grace_seconds: int = Field(120, ge=0)
    controller: Pod = Field(default_factory=_controller_pod)
    stages: Stages = Stages()

    @model_validator(mode="after")
    def _executions_are_possible(self) -> Self:
        for stage in STAGES:
            try:
                execution_of(Execution(), self.pod(stage))
            except ValueError as error:
                raise ValueError(f"stages.{stage}.{error}") from None
        return self

    def pod(self, stage: Stage) -> Pod:
        """The block of one stage."""
        pod: Pod = getattr(self.stages, stage)
        return pod

    def image(self, what: str, execution: Execution | None = None) -> str:
        """The image of a stage as it is executed, or of the controller."""
        own = self.controller if what == "controller" else getattr(self.stages, what)
        # vLLM is in the generator's image alone.
        vllm = what == "evaluate" and execution is not None and execution.engine == "vllm"
        name = IMAGES["generate" if vllm else what]
        return own.image or f"{self.images.registry}/mstar-{name}:{self.images.tag}"


def execution_of(common: Execution, pod: Pod) -> Execution:
    """How a stage runs: the run's execution with the stage's own keys over it. ``ValueError`` names a wrong key."""
    if not pod.execution:
        return common
    try:
        return Execution.model_validate(common.model_dump() | pod.execution)
    except ValidationError as error:
        lines = mistakes(error, Execution, "execution", under="execution.")
        raise ValueError("; ".join(line.strip() for line in lines)) from None


def resources_of(stage: str, pod: Pod, execution: Execution) -> Resources:
    """What a stage's container holds: what its block says, and the GPUs of an engine that is split over several.

    ``ValueError`` when the block has GPUs, and they cannot be shared out among such engines, or are fewer than ranks.
    """
    if stage == "train" and execution.deepspeed and execution.device != "cpu":
        given, ranks = pod.resources.gpus, execution.deepspeed.processes
        if 0 < given < ranks:
            raise ValueError(
                f"resources.limits gives a pod {given} GPUs, but execution.deepspeed.processes is {ranks}; "
                "raise the one or lower the other"
            )
    size, processes = execution.vllm.tensor_parallel, execution.vllm.processes
    sampling = stage in {"generate", "evaluate"} and execution.engine == "vllm"
    if not sampling or size == 1 or execution.device == "cpu":
        return pod.resources
    held, needed = pod.resources.gpus, size * (processes or 1)
    if not held:
        limits = pod.resources.limits | {GPU: str(needed)}
        return pod.resources.model_copy(update={"limits": limits})
    if held % size or held < needed:
        raise ValueError(
            f"resources.limits gives a pod {held} GPUs, but execution.vllm.tensor_parallel is {size}"
            + (f" and processes {processes}" if processes else "")
            + f"; give it {max(needed, -(-held // size) * size)}, leave GPUs out of resources.limits (they follow "
            "then), or lower tensor_parallel"
        )
    return pod.resources


def with_defaults(defaults: Mapping[str, Any], own: Mapping[str, Any], source: str) -> Cluster:
    """A block over an installation's defaults, and those over ours: mappings merge, all else is replaced.

    Raises ``SpecError`` when the outcome is not valid.
    """
    ours = {"controller": _controller_pod().model_dump(exclude_unset=True)}
    try:
        return Cluster.model_validate(_over(_over(ours, defaults), own))
    except ValidationError as error:
        lines = "\n".join(mistakes(error, Cluster, "cluster", under="cluster."))
        raise SpecError(f"{source} does not fit together:\n{lines}") from None


def _over(base: Any, top: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(top, Mapping):
        merged = dict(base)
        for key, value in top.items():
            merged[key] = _over(base[key], value) if key in base else value
        return merged
    return top
