"""RFC 9457 problem details: what every refused request is answered with."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

MEDIA_TYPE = "application/problem+json"


class Fault(BaseModel):
    """One thing that is wrong with a request, and where (a JSON pointer)."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    code: str
    message: str


class Problem(Exception):
    """A request that cannot be served as it stands; `detail` says what to do about it."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


def invalid(pointer: str, code: str, message: str) -> Problem:
    """A 422 about one field."""
    return Problem(422, "invalid", message, errors=[Fault(pointer=pointer, code=code, message=message)])


def faults(error: ValidationError, most: int = 5) -> str:
    """What does not fit and where, the first few in one line."""
    return "; ".join(f"{'/'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:most])


def not_found(what: str, name: str) -> Problem:
    return Problem(404, "not-found", f"There is no {what} {name!r} here.")
