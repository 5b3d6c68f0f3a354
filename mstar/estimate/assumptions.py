"""What a plan takes for granted: every number with its unit, its reason and where it is from.

A plan shows exactly the assumptions that it asked for, so ``Assumptions`` remembers which were.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from mstar.errors import SpecError
from mstar.estimate.ranges import Range
from mstar.mistakes import nearest

DEFAULT = "assumed"
NOTHING = 1e-12
"""What is not above it counts as 0: a plan divides by some of the numbers."""
MOST = 1e12
"""No number of a plan is above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """A number, what it counts, why it is taken to be that, and who says so (``assumed``: nobody here).

    It is above 0 and at most ``most``, whoever says it.
    """

    value: Range
    unit: str
    why: str
    source: str = DEFAULT
    most: float = MOST


def _taken(low: float, high: float, unit: str, why: str) -> Assumption:
    return Assumption(value=Range(low, high), unit=unit, why=why)


def _share(low: float, high: float, unit: str, why: str, most: float = 1.0) -> Assumption:
    return Assumption(value=Range(low, high), unit=unit, why=why, most=most)


DEFAULTS: Mapping[str, Assumption] = {
    # What is asked and answered.
    "text_tokens": _taken(
        80, 250, "tokens a prompt, without its image", "a question, options and the prompt around"
    ),
    "image_tokens": _taken(
        256, 1024, "tokens an image", "what most of today's families make of one"
    ),
    "characters_per_token": _taken(
        2.5, 4.5, "characters a token", "English is about 4, formulas and numbers less"
    ),
    "response_share": _share(
        0.2, 0.6, "of max_new_tokens a response has", "worked answers to school mathematics"
    ),
    "length_growth": _taken(
        0.8, 1.8, "times the measured response's length", "responses change as a policy learns"
    ),
    "answer_tokens": _taken(5, 15, "tokens of a true answer", "a number or an option in a box"),
    "steps": _taken(3, 8, "steps a response", "worked answers, one step a line"),
    "right": _share(0.25, 0.65, "of the responses are right", "the paper's policies are near 0.45"),
    "hinted_right": _share(
        0.4, 0.9, "of the hinted responses are right", "the answer is in the prompt"
    ),
    "solved": _share(
        0.6, 0.95, "of the queries have a right response", "Pass@16 of a policy that is warmed up"
    ),
    "usable": _share(
        0.3, 1.0, "of the right responses are left without repeats and bare answers", "a guess"
    ),
    "pairs_found": _share(0.4, 1.0, "of the asked pairs can be balanced", "0.6 in the demo"),
    "distinct": _share(
        0.4,
        1.0,
        "of a query's responses differ",
        "equal ones are scored once; short ones are often equal",
    ),
    "threshold_kept": _share(0.2, 0.8, "of the right responses are above a threshold", "a guess"),
    "benchmark_questions": _taken(
        1000,
        5000,
        "questions a public benchmark",
        "MathVista testmini has 1,000, MMBench 4,876 with its circles",
    ),
    # How fast.
    "train_utilisation": _share(
        0.20,
        0.45,
        "of the peak arithmetic",
        "usual for full fine-tuning; images and short rows cost",
    ),
    "read_utilisation": _share(
        0.25, 0.55, "of the peak arithmetic", "reading prompts, and scoring"
    ),
    "bandwidth_vllm": _share(0.4, 0.75, "of the memory's bandwidth", "decoding, with vllm"),
    "bandwidth_transformers": _share(
        0.1, 0.35, "of the memory's bandwidth", "decoding, with transformers: no fused kernels"
    ),
    "round_ms_vllm": _taken(
        4, 20, "ms a round of tokens beside the GPU's work", "scheduling some hundred rows"
    ),
    "round_ms_transformers": _taken(
        20, 60, "ms a round of tokens beside the GPU's work", "Python starts each kernel"
    ),
    "offload_slowdown": _taken(
        1.2, 3.0, "times the training's time", "the optimizer steps on the CPU"
    ),
    "measured_spread": _taken(
        0.8, 1.3, "times the measured seconds", "a short measurement, and machines differ"
    ),
    "size_scaling": _taken(
        0.8, 1.3, "times the ratio of the models' parameters", "another model than the measured one"
    ),
    "checked_per_s": _taken(
        3000,
        20000,
        "responses checked and selected a second and machine",
        "one core; formulas are slow",
    ),
    "start_seconds": _taken(
        30, 180, "seconds a pod's start", "image there already; imports, engine, kernels"
    ),
    "store_mb_per_s": _taken(
        100, 1000, "MB a second and pod from and to the store", "an object store in the same region"
    ),
    # How large.
    "token_bytes": _taken(
        1.5,
        6,
        "bytes a response's token in a Parquet file",
        "1.8 to 2.1 in the demo; real text is longer",
    ),
    "record_bytes": _taken(10, 200, "bytes a response beside its tokens", "ids, seeds, scores"),
    "image_kb": _taken(20, 150, "KB a query of the data set", "an encoded image"),
    "activation_bytes": _taken(
        28,
        40,
        "bytes a token, layer and hidden unit in 16 bits",
        "34 by Korthikanti et al. 2022, no scores kept",
    ),
    "memory_reserve": _share(
        0.06, 0.12, "of the GPU's memory is not to be had", "context, kernels, fragments", most=0.9
    ),
}


class Assumptions(Mapping[str, Range]):
    """Numbers by name. Which were asked for is remembered; nothing else ever changes in it."""

    def __init__(self, known: Mapping[str, Assumption] = DEFAULTS) -> None:
        self._known = dict(known)
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> Range:
        self._asked.add(name)
        return self._known[name].value

    def __iter__(self) -> Any:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def is_said(self, name: str) -> bool:
        """Whether somebody gave or found the number, so that it is no default."""
        return self._known[name].source != DEFAULT

    @property
    def asked(self) -> dict[str, Assumption]:
        """What has been asked for so far, in the order of the table."""
        return {name: found for name, found in self._known.items() if name in self._asked}

    def said(self, values: Mapping[str, Any], source: str) -> Self:
        """With other numbers, as a person wrote them: one, or a list of the least and the most.

        Raises ``SpecError`` naming ``source`` for a name that there is not, and for what is no such number.
        """
        known = dict(self._known)
        for name, value in values.items():
            if name not in known:
                raise SpecError(
                    f"{source}: there is no assumption {name!r}{nearest(name, list(known), 'they are')}"
                )
            found = parse_range(value, f"{source}: {name}", known[name].most)
            known[name] = replace(known[name], value=found, why="", source=source)
        return type(self)(known)

    def found(self, name: str, value: Range, source: str) -> Self:
        """With a number that was looked up or measured."""
        old = self._known[name]
        if old.source != DEFAULT:
            return self  # what a person said comes first
        told = replace(old, value=value, why="", source=source)
        return type(self)(self._known | {name: told})


def parse_range(value: Any, where: str, most: float = MOST) -> Range:
    """A number or ``[least, most]`` above 0 and at most ``most``. Raises ``SpecError`` that begins with ``where``."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    try:
        low, high = (_number(end) for end in ends)
    except (TypeError, ValueError):
        low = high = math.nan
    if NOTHING < low <= high <= most:
        return Range(low, high)
    raise SpecError(
        f"{where} is {value!r}; expected a number above 0 and at most {most:,.15g}, or two of them, [least, most]"
    )


def _number(value: Any) -> float:
    # YAML reads 1e9 as a text.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if isinstance(value, str) and not re.fullmatch(r"[\d.eE+-]+", value.strip()):
        raise ValueError
    return float(value)
