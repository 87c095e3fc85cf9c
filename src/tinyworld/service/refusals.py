"""Requests that are not carried out: one paragraph and the status of HTTP that says of what kind the reason is."""

from tinyworld.core.errors import UserError


class Refusal(UserError):
    """`status`: of HTTP, 4xx or 5xx."""

    status = 400


class Unauthorised(Refusal):
    status = 401


class Foreign(Refusal):
    """A request that another web site had a browser send."""

    status = 403


class NotThere(Refusal):
    status = 404


class NotNow(Refusal):
    """What this service does not do, or a result that is not there yet."""

    status = 409


class TooLarge(Refusal):
    status = 413


class WrongType(Refusal):
    status = 415


class TooSlow(Refusal):
    status = 408


class Busy(Refusal):
    """The queue is full, or the service is ending."""

    status = 503


class DiskFull(Refusal):
    status = 507
