"""What a person says to ``plan`` in place of assumptions: files, single numbers, a GPU, a price, a quota."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mstar.errors import SpecError
from mstar.estimate.assumptions import MOST, Assumptions
from mstar.estimate.calibration import FORMAT, Calibration, device_of, parse_calibration
from mstar.estimate.hardware import USUAL, Gpu, find_gpu, parse_gpu

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}


class Said:
    """What a person says in place of assumptions: files and single numbers, the later ones first."""

    def __init__(self, given: Iterable[str]) -> None:
        self.numbers = Assumptions()
        self.calibration: Calibration | None = None
        self.source = ""
        self.gpu: Any = None
        self._gpu_source = ""
        self._price: Any = None
        self._quota: Any = None
        for each in given:
            name, equals, value = each.partition("=")
            if equals and not Path(each).exists():
                self._take({name.strip(): _yaml(value, f"--assume {each}")}, "--assume")
            else:
                self._file(Path(each))

    def _file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(
                f"--assume {path}: cannot be read ({error}); expected a file, or an assumption such as right=0.4"
            ) from None
        raw = _yaml(text, str(path))
        if not isinstance(raw, dict):
            raise SpecError(f"{path}: expected names and numbers, found {type(raw).__name__}")
        if raw.get("format") == FORMAT:
            if self.calibration:
                raise SpecError(f"{path} and {self.source} are both calibrations; give one")
            self.calibration, self.source = parse_calibration(raw, str(path)), str(path)
        else:
            self._take(raw, str(path))

    def _take(self, raw: dict[str, Any], source: str) -> None:
        rest = dict(raw)
        if "gpu" in rest:
            self.gpu, self._gpu_source = rest.pop("gpu"), source
        self._price = rest.pop("price", self._price)
        self._quota = rest.pop("quota", self._quota)
        self.numbers = self.numbers.said(rest, source)

    def device(self, named: str | None) -> Gpu:
        """The device that the plan is for."""
        own = None
        if named is not None:
            own = find_gpu(named)
        elif self.gpu is not None:
            own = parse_gpu(self.gpu, f"{self._gpu_source}: gpu")
        if self.calibration:
            return device_of(self.calibration, own, self.source)
        return own or find_gpu(USUAL)

    def price(self, given: float | None) -> float | None:
        """Of a GPU-hour."""
        chosen, where = (
            (given, "--price") if given is not None else (self._price, "--assume: price")
        )
        if chosen is None:
            return None
        number = isinstance(chosen, int | float) and not isinstance(chosen, bool)
        if not number or not 0 <= chosen <= MOST:
            raise SpecError(
                f"{where} is {chosen!r}; expected a number from 0 to {MOST:,.0f}, of a GPU-hour"
            )
        return float(chosen)

    def quota(self, given: str | None) -> float | None:
        """In bytes."""
        chosen = given if given is not None else self._quota
        return None if chosen is None else size_of(str(chosen))


def size_of(text: str) -> float:
    """Bytes of ``10TB``, ``500 GB`` or a plain number; decimal, as buckets are billed. Raises ``SpecError``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)b?\s*", text.lower())
    if not match:
        raise SpecError(f"--quota {text!r}: expected a size such as 500GB or 10TB")
    return float(match[1]) * _UNITS[match[2]]


def _yaml(text: str, where: str) -> Any:
    import yaml

    from mstar.config import read_yaml

    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML: {error}") from None
