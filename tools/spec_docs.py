"""Write docs/spec.md from the spec's own types: ``python tools/spec_docs.py`` (``--check`` only compares)."""

import inspect
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mstar.config import RunSpec

TARGET = Path(__file__).resolve().parent.parent / "docs" / "spec.md"
HEAD = """# The run spec

Every key, written from the spec's types by `tools/spec_docs.py`. Defaults are the paper's where it gives one. An
unknown key is an error. `--set a.b=c` overrides a key on the command line. Relative paths are relative to the spec.

One more key stands at the top of a file and not in the spec that comes out: `extends: other.yaml` lays the file over
another, which may extend a third. Groups of keys are merged, key by key; a value, a list and `null` replace. Relative
paths in the other file are relative to that one. `--set` comes last. Names that begin with `demo:` are built in and no
paths.
"""


def render() -> str:
    """The page."""
    first: dict[type[BaseModel], tuple[str, Values]] = {}
    page = HEAD
    for name, (model, defaults) in _models("", RunSpec, None).items():
        values = _values(model, defaults)
        page += _section(name, model, values, first.get(model))
        first.setdefault(model, (name, values))
    return page


Values = dict[str, Any]
"""By key, what stands there when nothing is said."""

Found = dict[str, tuple[type[BaseModel], BaseModel | None]]
"""By place, a group's type, and what stands there when nothing is said."""


def _models(prefix: str, model: type[BaseModel], defaults: BaseModel | None) -> Found:
    found: Found = {prefix: (model, defaults)}
    for name, field in model.model_fields.items():
        if inner := _model(field.annotation):
            value = _values(model, defaults)[name]
            # A group with a key that must be given is given whole, and its place's own default is gone then.
            whole = any(each.is_required() for each in inner.model_fields.values())
            own = value if isinstance(value, BaseModel) and not whole else None
            found |= _models(f"{prefix}.{name}" if prefix else name, inner, own)
    return found


def _values(model: type[BaseModel], defaults: BaseModel | None) -> Values:
    return {
        key: getattr(defaults, key) if defaults else field.get_default(call_default_factory=True)
        for key, field in model.model_fields.items()
    }


def _section(
    name: str, model: type[BaseModel], values: Values, same: tuple[str, Values] | None
) -> str:
    if same:
        other, theirs = same
        own = [
            f"`{key}` {_shown(value)}"
            for key, value in values.items()
            if not isinstance(value, BaseModel) and value != theirs[key]
        ]
        apart = f", with other defaults: {', '.join(own)}" if own else ""
        return f"\n## `{name}`\n\nThe keys of `{other}`{apart}.\n"
    about = " ".join(inspect.cleandoc(model.__doc__ or "").split())
    rows = [
        f"| `{key}` | {_choices(f) or _type(f.annotation)} | {_shown(values[key])} |"
        for key, f in model.model_fields.items()
    ]
    title = f"`{name}`" if name else "Top level"
    return (
        f"\n## {title}\n\n{about}\n\n| key | type | default |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _choices(field: Any) -> str:
    """The names that a registry knows: such a field lists them as its examples."""
    return " or ".join(f"`{name}`" for name in field.examples or ())


def _model(annotation: Any) -> type[BaseModel] | None:
    options = [annotation, *get_args(annotation)]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(option) for option in inner)
    if origin is tuple:
        return "list of " + _type(inner[0])
    if annotation is NoneType:
        return "null"
    if _model(annotation):
        return "keys, see below"
    if origin is Annotated:
        return _type(inner[0])
    if origin is dict:
        return "keys and values"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(
        annotation, str(annotation)
    )


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "the defaults below"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return "`null`" if value is None else "`" + repr(value).replace("|", "\\|") + "`"


def main() -> None:
    """Write the page, or with --check fail when it differs."""
    page = render()
    if "--check" in sys.argv:
        if TARGET.read_text(encoding="utf-8") != page:
            sys.exit("docs/spec.md is not up to date: run python tools/spec_docs.py")
        return
    TARGET.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
