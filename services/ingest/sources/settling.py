"""When a file that is being written is whole: it has rested. Pure."""

from dataclasses import dataclass, field


@dataclass
class Settling:
    """Files by name, each with its stamp and since when it has been that; `rest` in seconds."""

    rest: float
    _files: dict[str, tuple[str, float]] = field(default_factory=dict)

    def look(self, name: str, stamp: str | None, now: float) -> None:
        """A file was seen with this stamp (None: it is gone)."""
        if stamp is None:
            self._files.pop(name, None)
        elif self._files.get(name, ("",))[0] != stamp:
            self._files[name] = (stamp, now)

    def rested(self, now: float) -> list[str]:
        """The files that have rested long enough, in the order they came; to be looked at once more and then taken."""
        return [name for name in self._files if self.is_rested(name, now)]

    def is_rested(self, name: str, now: float) -> bool:
        return name in self._files and now - self._files[name][1] >= self.rest

    def take(self, name: str) -> None:
        """The file is taken: it is of interest again when it changes."""
        self._files.pop(name, None)
