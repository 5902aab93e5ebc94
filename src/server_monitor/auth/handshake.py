"""Who may open a socket, by what its handshake says.

A browser sends its cookie with every socket, whichever page opens it, and says in `Origin` which page that is. A
program shows a bearer token, which no page can make a browser send.
"""

from collections.abc import Collection
from urllib.parse import urlsplit


def bearer(header: str | None) -> str | None:
    """The token of an `Authorization` header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def is_own_page(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Does this origin name a page of the console, which is reached as `host`, or one that is allowed besides?"""
    if origin is None:
        return False
    if origin in allowed:
        return True
    page = urlsplit(origin)
    return page.scheme in ("http", "https") and page.netloc.lower() == host.lower()
