"""Who may open a socket, by what its handshake says.

A browser sends its cookie with every socket, whichever page opens it, and says in `Origin` which page that is. A
program shows a bearer token, which no page can make a browser send.
"""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from server_monitor.telemetry.logs import request_context


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a handshake is answered with an HTTP error."""

    status: int
    code: str
    detail: str

    def problem(self) -> dict[str, object]:
        """The body of the answer (RFC 9457)."""
        context = request_context.get()
        return {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": context.request_id if context else None,
        }


FOREIGN_PAGE = Refusal(403, "denied", "A browser may open this only from the console's own pages.")
NOT_LOGGED_IN = Refusal(401, "unauthenticated", "Log in first, or send a valid bearer token.")


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
