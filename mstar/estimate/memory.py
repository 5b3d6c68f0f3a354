"""How much of a GPU's memory a stage needs, and which settings would fit where it does not.

Training holds the weights, a gradient and AdamW's two moments of each trained one, and activations. Weights are float32
here, but under DeepSpeed in bfloat16 two bytes each beside a float32 copy that counts as the optimizer's; frozen ones
under adapters in bfloat16 are two bytes as well.
ZeRO divides the optimizer (stage 1), the gradients as well (2) and the weights as well (3) among the ranks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from mstar.estimate.assumptions import Assumptions
from mstar.estimate.hardware import Gpu
from mstar.estimate.layout import Setup, engines_of
from mstar.estimate.models import ModelFacts
from mstar.estimate.ranges import Range, total
from mstar.estimate.speed import HALF, Lengths
from mstar.execution import Execution
from mstar.optimization import Optimization

READ_TOGETHER = 8192
"""Prompt tokens that vLLM reads in one forward, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes on one GPU, part by part. ``who`` is what needs them."""

    who: str
    parts: dict[str, Range]

    @property
    def bytes(self) -> Range:
        """All parts together."""
        return total(self.parts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a need fits: ``fits`` is None where it depends on what was assumed."""

    need: Need
    room: Range
    fits: bool | None
    advice: tuple[str, ...] = ()


def room(gpu: Gpu, numbers: Assumptions) -> Range:
    """What of a GPU's memory is to be had."""
    reserve = numbers["memory_reserve"]
    return Range(gpu.memory * (1 - reserve.high), gpu.memory * (1 - reserve.low))


def verdict(need: Need, gpu: Gpu, numbers: Assumptions) -> Verdict:
    """A need against a GPU."""
    there = room(gpu, numbers)
    fits: bool | None = None
    if need.bytes.high <= there.low:
        fits = True
    elif need.bytes.low > there.high:
        fits = False
    return Verdict(need=need, room=there, fits=fits)


def trained_parameters(model: ModelFacts, setup: Setup, optimization: Optimization) -> float:
    """How many parameters learn."""
    if setup.lora:
        # A pair of thin matrices beside each linear layer: four of attention and three of the gated layer.
        kv = model.kv_heads * model.head_size
        wide = max(model.hidden, _wide(model))
        ends = {
            "q_proj": 2 * model.hidden,
            "k_proj": model.hidden + kv,
            "v_proj": model.hidden + kv,
            "o_proj": 2 * model.hidden,
            "gate_proj": model.hidden + wide,
            "up_proj": model.hidden + wide,
            "down_proj": model.hidden + wide,
        }
        taken = setup.lora_layers or tuple(ends)
        return setup.lora * model.layers * sum(ends.get(name, 2 * model.hidden) for name in taken)
    embeddings = float(model.vocabulary * model.hidden)
    frozen = {
        "vision": model.vision_parameters,
        "embeddings": embeddings,
        "language": max(0.0, model.language_parameters - embeddings),
    }
    return max(0.0, model.parameters - sum(frozen[group] for group in set(optimization.freeze)))


def held_bytes(setup: Setup, optimization: Optimization) -> float:
    """Bytes of a weight as it is trained, and so as it is saved."""
    apart = setup.zero is not None or setup.lora is not None
    return HALF if apart and optimization.dtype == "bfloat16" else 4.0


def training(
    model: ModelFacts,
    setup: Setup,
    optimization: Optimization,
    lengths: Lengths,
    numbers: Assumptions,
) -> Need:
    """One rank of a training step."""
    halves = optimization.dtype == "bfloat16"
    learning = trained_parameters(model, setup, optimization)
    deep = setup.zero is not None
    held = held_bytes(setup, optimization)
    weights = model.parameters * held
    gradients = learning * (HALF if deep and halves else 4.0)
    moments = learning * (12.0 if deep else 8.0)
    if halves and held != HALF:
        weights += model.parameters * HALF  # autocast keeps the bfloat16 copies for a step
    stage, ranks = setup.zero or 0, setup.ranks
    if stage >= 1:
        moments /= ranks
    if stage >= 2:
        gradients /= ranks
    if stage >= 3:
        weights /= ranks
    if setup.offload in {"optimizer", "parameters"}:
        moments = 0.0
        gradients = 0.0 if stage >= 2 else gradients
    if setup.offload == "parameters":
        weights = 0.0
    return Need(
        who=f"training with {_said(setup, optimization)}",
        parts={
            "weights": Range.of(weights),
            "gradients": Range.of(gradients),
            "optimizer": Range.of(moments),
            "activations": _activations(model, setup, optimization, lengths, numbers),
        },
    )


def _activations(
    model: ModelFacts,
    setup: Setup,
    optimization: Optimization,
    lengths: Lengths,
    numbers: Assumptions,
) -> Range:
    rows = setup.rows(optimization.batch_size)
    width = 1.0 if optimization.dtype == "bfloat16" else 2.0
    layer = numbers["activation_bytes"] * (rows * width)
    tokens = lengths.prompt + lengths.response
    one = tokens * layer * float(model.hidden)
    kept = one * float(model.layers)
    if setup.recomputed:
        kept = tokens * float(2 * width * rows * model.hidden * model.layers) + one
    if "vision" not in optimization.freeze and not setup.lora and model.vision_parameters:
        patches = lengths.image * model.patches
        seen = patches * layer * float(model.vision_hidden)
        kept += seen if setup.recomputed else seen * float(model.vision_layers)
    # The words' scores of each response token, in the model's width, in float32, and their gradient.
    return kept + lengths.response * float(rows * model.vocabulary * (2 * width + 8))


def generating(
    model: ModelFacts, execution: Execution, lengths: Lengths, width: float, most: int
) -> Need:
    """Sampling. ``width`` is a number's bytes, ``most`` the most tokens that a response may have.

    With transformers all rows of a batch are in memory at once; vLLM waits with those that find no room, so it needs
    room for one.
    """
    context = lengths.prompt + float(most)
    rows = 1 if execution.engine == "vllm" else execution.sampling_rows
    together = (
        Range.of(READ_TOGETHER)
        if execution.engine == "vllm"
        else lengths.prompt * float(max(1, execution.sampling_rows // 16))
    )
    split, _ = engines_of(execution)
    over = f", each over {split} GPUs" if split > 1 else ""
    return Need(
        who=f"generating with {execution.engine}{over}",
        parts={
            "weights": Range.of(model.parameters * width / split),
            "caches": context * (rows * model.cache_bytes(width) / split),
            "activations": together * (16.0 * width * model.hidden)
            + float(rows * model.vocabulary * (width + 4)),
        },
    )


def scoring(model: ModelFacts, execution: Execution, lengths: Lengths, width: float) -> Need:
    """The PRM over ``scoring_rows`` responses, whose prompts are read once each."""
    rows = execution.scoring_rows
    tokens = (lengths.prompt + lengths.response) * float(rows)
    return Need(
        who="scoring",
        parts={
            "weights": Range.of(model.parameters * width),
            "caches": tokens * model.cache_bytes(width),
            "activations": lengths.response * float(rows) * (16.0 * width * model.hidden),
        },
    )


def together(first: Need, second: Need) -> Need:
    """Two that share a device, as an evaluation's sampler and scorer do: both weights, and the larger rest."""
    rest = ("caches", "activations")
    return Need(
        who=f"evaluating ({first.who}, and its PRM)",
        parts={"weights": first.parts["weights"] + second.parts["weights"]}
        | {part: first.parts[part].most(second.parts[part]) for part in rest},
    )


def advised(
    model: ModelFacts,
    setup: Setup,
    optimization: Optimization,
    lengths: Lengths,
    gpu: Gpu,
    numbers: Assumptions,
) -> Verdict:
    """Training against a GPU, with settings that would fit where it does not: the nearest ones."""
    found = verdict(training(model, setup, optimization, lengths, numbers), gpu, numbers)
    if found.fits:
        return found
    advice: dict[frozenset[str], str] = {}
    for other in _alternatives(setup, optimization.batch_size):
        need = training(model, other, optimization, lengths, numbers)
        changed = _changed(setup, other)
        if changed and not advice.keys() & _parts(changed) and verdict(need, gpu, numbers).fits:
            advice[frozenset(changed)] = ", ".join(changed.values())
        if len(advice) == 3:
            break
    said = tuple(advice.values()) or ("more or larger GPUs, or a smaller model: no setting alone",)
    return replace(found, advice=said)


def _parts(changed: Mapping[str, str]) -> set[frozenset[str]]:
    """Every choice among the changed settings: who is told that one alone is enough need not hear of more."""
    names = sorted(changed)
    return {
        frozenset(some) for count in range(1, len(names) + 1) for some in combinations(names, count)
    }


def _alternatives(setup: Setup, batch: int) -> Iterator[Setup]:
    """Other settings, the nearest first: fewer rows at a time, recomputing, ZeRO, more ranks, LoRA."""
    whole = setup.rows(batch)
    halved = [whole >> power for power in range(whole.bit_length())]
    fewest = replace(setup, micro_batch=1)
    for rows in halved[1:]:
        yield replace(setup, micro_batch=rows)
    yield replace(setup, recomputed=True)
    for rows in halved[1:]:
        yield replace(setup, micro_batch=rows, recomputed=True)
    for ranks in (setup.ranks, *(count for count in (2, 4, 8, 16, 32, 64) if count > setup.ranks)):
        for stage in (1, 2, 3):
            if stage > (setup.zero or 0) or ranks > setup.ranks:
                yield replace(fewest, zero=stage, ranks=ranks, recomputed=True)
        if setup.offload == "none":
            yield replace(
                fewest,
                zero=max(2, setup.zero or 0),
                ranks=ranks,
                recomputed=True,
                offload="optimizer",
            )
    if setup.lora is None:
        yield replace(fewest, recomputed=True, lora=16)


def _changed(old: Setup, new: Setup) -> dict[str, str]:
    """What to write into a spec to come from one setup to the other, by setting."""
    said = {}
    if new.micro_batch != old.micro_batch:
        said["rows"] = f"execution.micro_batch={new.micro_batch}"
    if new.recomputed and not old.recomputed:
        said["recomputed"] = "execution.gradient_checkpointing=true"
    if new.zero != old.zero:
        said["zero"] = f"execution.deepspeed.zero_stage={new.zero}"
    if new.ranks != old.ranks:
        said["ranks"] = f"{new.ranks} ranks (execution.deepspeed.processes, a GPU each)"
    if new.offload != old.offload:
        said["offload"] = f"execution.deepspeed.offload={new.offload}"
    if new.lora and not old.lora:
        said["lora"] = f"optimization.lora.rank={new.lora}"
    return said


def _said(setup: Setup, optimization: Optimization) -> str:
    how = [f"ZeRO {setup.zero}" if setup.zero is not None else "no DeepSpeed"]
    how.append(f"{setup.ranks} rank{'s' if setup.ranks > 1 else ''}")
    if setup.offload != "none":
        how.append(f"offload {setup.offload}")
    if setup.recomputed:
        how.append("gradient checkpointing")
    if setup.lora:
        how.append(f"LoRA rank {setup.lora}")
    if optimization.freeze:
        how.append(f"{' and '.join(optimization.freeze)} frozen")
    return ", ".join(how)


def _wide(model: ModelFacts) -> int:
    """The width of the gated layer, from what the decoder's parameters leave beside attention and embeddings."""
    kv = model.kv_heads * model.head_size
    attention = model.layers * 2 * model.hidden * (model.hidden + kv)
    left = model.language_parameters - attention - 2 * model.vocabulary * model.hidden
    return max(0, round(left / (3 * model.hidden * model.layers)))
