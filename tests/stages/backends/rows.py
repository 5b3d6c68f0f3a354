"""Prompts and training rows for the backends' tests."""

from dataclasses import replace

from mstar.core.records import Example, Finish
from mstar.stages.protocols import Prompted, TrainingRow
from tests.tiny import draw_image, encode_text


def make_prompts(count: int, samples: int = 3) -> list[Prompted]:
    """Prompts of different lengths and images."""
    return [
        Prompted(
            query_id=f"q{index}",
            text="What is this" + "?" * (7 * index % 11),
            image=draw_image(index),
            seeds=tuple(1000 * index + sample for sample in range(samples)),
        )
        for index in range(count)
    ]


def make_groups(queries: int, samples: int) -> list[TrainingRow]:
    """Labelled rows of which ``samples`` each answer one long query, in turn: equal prompts are apart."""
    rows = make_rows(queries * samples, steps=True)
    prompts = [replace(row.prompt, text=row.prompt.text + "?" * 40) for row in rows[:queries]]
    return [
        replace(
            row,
            prompt=prompts[index % queries],
            example=replace(row.example, query_id=f"q{index % queries}", sample=index // queries),
        )
        for index, row in enumerate(rows)
    ]


def make_rows(count: int, *, start: int = 0, steps: bool = False) -> list[TrainingRow]:
    """Training rows of different lengths; with ``steps``, labelled for a PRM."""
    rows = []
    for index in range(start, start + count):
        text = "so" + "o" * (5 * index % 13) + "\nit is " + str(index % 10)
        tokens = encode_text(text)
        example = Example(
            query_id=f"q{index}",
            sample=0,
            text=text,
            tokens=tokens,
            finish=Finish.LENGTH if index % 5 == 0 else Finish.STOP,
            policy="p",
            seed=index,
            step_ends=(text.index("\n") + 1, len(tokens)) if steps else (),
            labels=(0.75, (index % 4) / 4) if steps else (),
        )
        prompt = Prompted(query_id=f"q{index}", text="Go" * (index % 4), image=draw_image(index))
        rows.append(TrainingRow(prompt=prompt, example=example))
    return rows
