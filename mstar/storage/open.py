"""From what a person writes (``--store``) to the store behind it."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from mstar.errors import SpecError
from mstar.mistakes import half_address
from mstar.storage.folder import FolderStore
from mstar.storage.store import Store


def open_store(url: str | Path) -> Store:
    """The store at a folder's path, ``file:///path`` or ``s3://bucket/prefix``; nothing is contacted or made yet."""
    if isinstance(url, str) and half_address(url):
        raise SpecError(
            f"the store {url} is no address: expected a folder, file:///path or s3://bucket/prefix"
        )
    if isinstance(url, Path) or "://" not in url:
        if not str(url).strip():
            raise SpecError("the store is empty: expected a folder or s3://bucket/prefix")
        return FolderStore(url)
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path:
        return FolderStore(unquote(parts.path))
    if parts.scheme == "s3":
        from mstar.storage.s3 import S3Store

        return S3Store(url)
    raise SpecError(
        f"the store {parts.scheme}://{parts.path} is none that is known here: expected a folder or s3://bucket/prefix"
    )
