"""Why a message or a write is refused. The docstring of a class is what is said of it."""

from collections.abc import Collection


class Refusal(Exception):
    """The message cannot be handled."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class Drop(Refusal):
    """This will never succeed: it goes to the dead letters with its reason."""


class Retry(Refusal):
    """This may succeed later: the broker is asked to deliver it again."""


class Conflict(Retry):
    """Somebody else has written the record since it was read."""

    def __init__(self, keys: Collection[str] = ()) -> None:
        super().__init__(f"{self.__doc__} {', '.join(sorted(keys))}".strip())
        self.keys = frozenset(keys)


class Unavailable(Retry):
    """Something this service depends on does not answer."""
