"""A page around sections: head, style, navigation and a policy that lets it fetch nothing; and writing it whole."""

import base64
import hashlib
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from mstar.errors import StorageError
from mstar.report.figures import Section
from mstar.report.markup import Html, el


def document(
    title: str, header: Html, sections: Sequence[Section], *, script: str | None = None
) -> str:
    """The page as text. Its first section is what the link for keyboards skips to.

    Nothing may be fetched, and no script runs but ``script``, whatever a question or a response says.
    """
    allowed = ""
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed = f"script-src 'sha256-{digest}'; "
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"{allowed}base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Html(resource("page.css"))),
    )
    body = el(
        "body",
        el("a", "Skip to the result", href=f"#{sections[0].id}", class_="skip"),
        header,
        el(
            "nav",
            el("ul", (el("li", el("a", s.short, href=f"#{s.id}")) for s in sections)),
            aria_label="Sections",
        ),
        el("main", map(_section, sections)),
        None if script is None else el("script", Html(script)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def resource(name: str) -> str:
    """A file of the page that ships beside this module."""
    return (files("mstar.report") / name).read_text(encoding="utf-8")


def date(seconds: float) -> str:
    """Epoch seconds as a person reads them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def write_whole(path: Path, data: bytes) -> None:
    """Replace ``path`` at once, so that nobody opens half a page and who is killed leaves the file of before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except IsADirectoryError:
        raise StorageError(f"{path} is a folder; name a file with --out") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error}; name another place with --out"
        ) from None


def _section(section: Section) -> Html:
    name = f"{section.id}-title"
    return el(
        "section",
        el("h2", section.title, id=name),
        section.body,
        id=section.id,
        aria_labelledby=name,
    )
