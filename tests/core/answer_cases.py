"""The tables of hand-checked answers, for the tests of the typed checks and of what stands behind them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    same: bool
    predicted: str
    answer: str
    options: tuple[str, ...]

    def __str__(self):
        sign = "=" if self.same else "x"
        return f"{self.predicted} {sign} {self.answer}" + f" of {self.options}" * bool(self.options)


def read_cases(name):
    """The cases of ``tests/core/<name>.txt``, none of them twice."""
    lines = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").splitlines()
    cases = [_case(line) for line in lines if line and not line.startswith("#")]
    assert len(set(cases)) == len(cases)
    return cases


def _case(line):
    sign, predicted, answer, *options = (column.strip() for column in line.split("¦"))
    assert sign in {"=", "x"}, line
    listed = tuple(option.strip() for option in options[0].split(" ; ")) if options else ()
    return Case(same=sign == "=", predicted=predicted, answer=answer, options=listed)
