"""Which version answers for a sample, also while a new one gets a share of the traffic. Pure."""

from dataclasses import dataclass, field

from services.contracts.ids import sha256
from services.infer.artefacts import Loaded

STEPS = 16**13  # what 13 hexadecimal digits can tell apart: all that a float holds


def chosen(sample_id: str, version: str, share: float) -> bool:
    """Whether `version` answers for the sample, which it does for `share` (0..1) of all ids.

    The same sample is always on the same side, on every replica; as the share grows, no sample goes back. Another
    version gets other samples, so that it is not always the same ones that meet what is new.
    """
    return int(sha256(f"{version}|{sample_id}".encode())[:13], 16) < share * STEPS


@dataclass
class Shelf:
    """What this replica has in memory for a project: `active` answers for a share, `rest` for the others."""

    active: Loaded | None = None
    rest: Loaded | None = None
    share: float = 1.0
    shadow: Loaded | None = None  # is asked too, and not listened to
    epoch: int = -1
    extractor: Loaded | None = None
    held: dict[str, Loaded] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # epochs that can never be loaded here
    not_before: float = 0.0  # loop time of the next try, after the blob store did not answer
    tries: int = 0
    served_before: bool = False

    def answering(self, sample_id: str) -> Loaded | None:
        """The version that answers for a sample."""
        if self.active is None or self.rest is None or chosen(sample_id, self.active.version, self.share):
            return self.active
        return self.rest

    @property
    def shares(self) -> dict[str, float]:
        """version -> its share of the traffic, of those that have one."""
        if self.active is None:
            return {}
        if self.rest is None:
            return {self.active.version: 1.0}
        return {self.active.version: self.share, self.rest.version: 1.0 - self.share}

    @property
    def serving(self) -> list[Loaded]:
        """All that must stay in memory."""
        return [one for one in (self.active, self.rest, self.shadow) if one is not None]
