"""Predictions on request: whoever asks while a model runs shares the next run."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from services.infer.answering import answer
from services.infer.artefacts import Loaded
from services.infer.batching import Failure, Piece, Predictions
from services.infer.scoring import Scoring

LATELY = 0.2
"""What the newest run weighs."""


class Busy(Exception):
    """So many are waiting that the answer would come too late."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"an answer would take about {seconds:.2g} s now")
        self.seconds = seconds


@dataclass
class Question:
    """One request's inputs, waiting for a run."""

    pieces: Sequence[Piece]
    answer: "asyncio.Future[list[dict[str, Any] | Failure]]"


@dataclass
class Line:
    """Those who wait for one loaded model."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[Question] = field(default_factory=list)
    run_seconds: float = 0.0  # a run's, lately

    def expected(self, inputs: int, most: int) -> float:
        """Seconds until so many inputs that come now are answered; 0 where nobody is before them, however slow it was.

        Whoever comes first is always answered, so that a slow run in the past refuses nobody for good.
        """
        if not self.waiting and not self.lock.locked():
            return 0.0
        ahead = inputs + sum(len(question.pieces) for question in self.waiting)
        return self.run_seconds * (self.lock.locked() + math.ceil(ahead / most))

    def took(self, seconds: float) -> None:
        """Remember how long a run has taken: the last five or so count."""
        self.run_seconds += (seconds - self.run_seconds) * (LATELY if self.run_seconds else 1.0)

    def take(self, most: int) -> list[Question]:
        """The questions of the next run: `most` inputs, or one question that is larger."""
        taken = [self.waiting.pop(0)]
        size = len(taken[0].pieces)
        while self.waiting and size + len(self.waiting[0].pieces) <= most:
            size += len(self.waiting[0].pieces)
            taken.append(self.waiting.pop(0))
        return taken


class Predictor:
    """One line for each loaded model; a swapped-out model answers those in its line and is dropped with it."""

    def __init__(self, scoring: Scoring, size: int, budget: float | None = None) -> None:
        self._scoring = scoring
        self._size = size
        self._budget = budget
        self._lines: WeakKeyDictionary[Loaded, Line] = WeakKeyDictionary()

    async def predict(self, loaded: Loaded, pieces: Sequence[Piece]) -> list[dict[str, Any] | Failure]:
        """What the model says of each piece, or why it says nothing. Raises Busy where that is past the budget."""
        line = self._lines.setdefault(loaded, Line())
        expected = line.expected(len(pieces), self._size)
        if self._budget is not None and expected > self._budget:
            raise Busy(expected)
        question = Question(pieces, asyncio.get_running_loop().create_future())
        line.waiting.append(question)
        async with line.lock:
            while not question.answer.done():
                began = time.perf_counter()
                await self._run(loaded, line.take(self._size), question)
                line.took(time.perf_counter() - began)
        return await question.answer

    async def _run(self, loaded: Loaded, questions: Sequence[Question], mine: Question) -> None:
        pieces = [piece for question in questions for piece in question.pieces]
        try:
            result = await self._scoring.predict(loaded, pieces)
        except BaseException as error:
            failed = error if isinstance(error, Exception) else RuntimeError("the run was cancelled")
            for question in questions:
                if question is not mine and not question.answer.done():
                    question.answer.set_exception(failed)
            raise
        rows = result.row_of
        answers = iter([result.failures.get(at) or _shown(loaded, result, rows[at]) for at in range(len(pieces))])
        for question in questions:
            mine_in_order = [next(answers) for _ in question.pieces]
            if not question.answer.done():
                question.answer.set_result(mine_in_order)


def _shown(loaded: Loaded, result: Predictions, row: int) -> dict[str, Any]:
    said = answer(loaded.manifest, result, row)
    top = said["top"]
    shown = {"label": top.label, "confidence": top.confidence, "value": top.answer}
    if "detections" in said:
        shown["detections"] = [box.model_dump() for box in said["detections"]]
    else:
        shown["probabilities"] = said["probabilities"]
    return {**shown, "scores": said["scores"]}
