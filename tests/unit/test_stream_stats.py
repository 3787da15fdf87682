"""How unsure the model is of what each stream brings."""

from services.select_uncertain.candidate import Candidate
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.stats import by_stream


def candidate(name: str, stream: str | None, sure: float, state: str = "CANDIDATE") -> Candidate:
    top = {"label": "a", "confidence": sure}
    return Candidate(name, state, "m1", {}, (sure, 1 - sure), top, stream=stream)  # type: ignore[arg-type]


def test_the_stream_that_the_model_is_least_sure_of_comes_first() -> None:
    rows = [
        candidate("1", "gate", 0.9),
        candidate("2", "gate", 0.8),
        candidate("3", "yard", 0.5),
        candidate("4", None, 1.0),
        candidate("5", "yard", 0.99, "LABELED"),
        Candidate("6", "CANDIDATE", "none", {}, stream="dark"),
    ]
    found = by_stream(ProjectPool("p", candidates={one.sample_id: one for one in rows}))
    assert list(found) == ["yard", "gate", ""]
    assert found == {
        "yard": {"n": 1, "uncertainty": 1.0},
        "gate": {"n": 2, "uncertainty": 0.3},
        "": {"n": 1, "uncertainty": 0.0},
    }
