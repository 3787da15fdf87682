"""When an annotator learns what the model thinks: before the answer, after it, or never. Pure."""

from typing import Literal

from services.contracts.ids import sha256

Suggestions = Literal["blind", "reveal_after", "topk", "accept_reject"]
SHOWN_BEFORE = ("topk", "accept_reject")


def policy_of(task: str, wanted: Suggestions, blind_share: float) -> Suggestions:
    """The project's policy, but `blind` for a share of the tasks: to see what the others' suggestions do to answers.

    Which tasks these are follows from their ids alone, so that it stays so over retries and replicas.
    """
    return "blind" if int(sha256(f"blind {task}".encode())[:12], 16) < blind_share * 16**12 else wanted
