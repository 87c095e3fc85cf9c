"""Who may ask: with a token its holders, without one this machine's own users, and never another web site through a browser."""

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from tinyworld.core.errors import ConfigError
from tinyworld.service.refusals import Foreign, Unauthorised

SHORTEST_TOKEN = 16
BROWSER_COOKIE, TOKEN_COOKIE = "tinyworld_browser", "tinyworld_token"
OPEN = ("/health", "/login")
"""What needs no token: whether the service runs, and where a browser shows its own."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Raises ConfigError for a service that everybody in the network could use, and for a token that can be guessed."""
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines reach this service, so it needs a token that its users send with every request: "
            f"--token, or the environment variable TINYWORLD_TOKEN, of {SHORTEST_TOKEN} letters and more. Without one, keep "
            "--host 127.0.0.1. What goes over a network that others listen to should go through a server with TLS in front."
        )
    if token is not None and (
        len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise ConfigError(
            f"--token must be {SHORTEST_TOKEN} or more printable ASCII letters without blanks; "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes a good one."
        )


class Guard:
    """token: what requests must bring, None for a service that only its own machine reaches."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raises Unauthorised and Foreign."""
        if self.token is not None:
            if path not in OPEN and not self._has_token(headers):
                raise Unauthorised(
                    "A token is needed: send the header Authorization: Bearer TOKEN, or open /login in a browser."
                )
            return
        named = headers.get("host", "")
        if not is_loopback(_host_of(named)):  # a name that another site points at this machine
            raise Foreign("This service answers under its own address alone, such as http://127.0.0.1.")
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin not in (None, f"http://{named}", f"https://{named}"):
            raise Foreign("This request comes from another web site.")

    def right(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(_digest(token), _digest(self.token))

    def cookie(self) -> str:
        """What a browser that has shown the token keeps instead of it."""
        assert self.token is not None
        return hmac.new(self.token.encode(), b"tinyworld browser", hashlib.sha256).hexdigest()

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.right(given.strip()):
            return True
        return hmac.compare_digest(_digest(cookie_of(headers, TOKEN_COOKIE)), _digest(self.cookie()))


def cookie_of(headers: Headers, name: str) -> str:
    """A cookie's value, "" without one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def owner_of(headers: Headers) -> str:
    """Whose jobs a browser's are; "" for clients without the cookie. A digest, so that no record holds the cookie itself."""
    cookie = cookie_of(headers, BROWSER_COOKIE)
    return _digest(cookie).hex() if len(cookie) >= SHORTEST_TOKEN else ""


def _host_of(named: str) -> str:
    try:
        return urlsplit(f"//{named}").hostname or ""
    except ValueError:
        return ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
