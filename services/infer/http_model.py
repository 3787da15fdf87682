"""A model that somebody else's server runs: samples are posted to it, and what it says is believed once it is checked.

A server that does not answer is asked again, with waits that double, as long as there is time; then its samples are
failures that may be scored later, and for a moment nobody waits for it. One that refuses a batch is asked about each of
its samples alone, so that the one that it cannot take is known.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import numpy as np
from pydantic import ValidationError

from services.contracts import endpoints
from services.contracts.endpoints import Box, Endpoint, Prediction
from services.contracts.manifest import ModelManifest
from services.contracts.problem import faults
from services.infer.batching import Failure, Piece, Predictions, Run, gathered, readable
from services.infer.model import Scored
from services.infer.reading import embedded
from services.infer.settings import Server

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which it may go better another time."""
OF_CONTENT = (400, 413, 415, 422)
"""Answers that are about what was sent."""
FIRST_WAIT = 0.1
PAUSE = 2.0
"""Seconds for which a server that gave no answer in time is not asked."""
LARGEST_ANSWER = 64 << 20


class Silent(Exception):
    """The server gives no answer now."""


class Refused(Exception):
    """The server will not say anything of this, however often it is asked."""

    def __init__(self, detail: str, of_content: bool = False) -> None:
        super().__init__(detail)
        self.of_content = of_content


class HttpModel:
    """One model on one server."""

    def __init__(self, client: httpx2.AsyncClient, server: Server, endpoint: Endpoint, manifest: ModelManifest) -> None:
        self.manifest = manifest
        self.provider = f"http:{endpoint.server}"
        self._client, self._server, self._endpoint = client, server, endpoint
        self._silent_until, self._why = 0.0, ""

    async def predictions(self, pieces: Sequence[Piece]) -> Predictions:
        """The same as `batching.predictions`, from the server; within its `within_seconds`, whatever it does."""
        positions, _, failures = await asyncio.to_thread(readable, self.manifest, pieces)
        runs: list[Run] = []
        try:
            async with asyncio.timeout(self._server.within_seconds):
                for start in range(0, len(positions), self._server.batch):
                    runs += await self._run(positions[start : start + self._server.batch], pieces, failures)
        except (Silent, TimeoutError) as error:
            detail = str(error) or f"no answer within {self._server.within_seconds:g} s"
            self._note(detail)
            done = {position for answered, _ in runs for position in answered} | failures.keys()
            failures |= {
                position: Failure("server-silent", f"{self.provider}: {detail}", retryable=True)
                for position in positions
                if position not in done
            }
        return await asyncio.to_thread(gathered, self.manifest, runs, failures)

    async def _run(self, positions: list[int], pieces: Sequence[Piece], failures: dict[int, Failure]) -> list[Run]:
        """Raises Silent."""
        contents = [(pieces[position].content, pieces[position].media_type) for position in positions]
        try:
            said = await self._asked(endpoints.posted(self.manifest, self._endpoint, contents), len(positions))
        except Refused as error:
            if not error.of_content or len(positions) == 1:
                detail, again = f"{self.provider}: {error}", not error.of_content
                failures |= {position: Failure("server-refused", detail, again) for position in positions}
                return []
            return [run for position in positions for run in await self._run([position], pieces, failures)]
        answered: list[int] = []
        rows: list[Prediction] = []
        for position, raw in zip(positions, said, strict=True):
            row = self._checked(raw)
            if isinstance(row, Failure):
                failures[position] = row
            else:
                answered.append(position)
                rows.append(row)
        return [(answered, self._outputs(rows))] if rows else []

    async def _asked(self, body: bytes, count: int) -> list[Any]:
        """The predictions, one for each input. Raises Silent and Refused."""
        if asyncio.get_running_loop().time() < self._silent_until:
            raise Silent(self._why)
        answer = await self._patiently(body)
        try:
            said = endpoints.Answer.model_validate_json(answer).predictions
        except ValidationError as error:
            raise Refused(f"its answer does not fit: {faults(error, 3)}") from error
        if len(said) != count:
            raise Refused(f"its answer has {len(said)} prediction(s) for {count} input(s)")
        return said

    async def _patiently(self, body: bytes) -> bytes:
        """The answer, of several tries. Raises Silent and Refused."""
        why = ""
        for turn in range(self._server.tries):
            if turn:
                await asyncio.sleep(FIRST_WAIT * 2 ** (turn - 1))
            try:
                return await self._post(body)
            except (Silent, OSError, httpx2.RequestError) as error:  # a token that cannot be read, too
                why = str(error) or f"no answer within {self._server.timeout_seconds:g} s"
        raise Silent(why)

    async def _post(self, body: bytes) -> bytes:
        headers = {"content-type": "application/json"}
        if self._server.token_file is not None:
            token = await asyncio.to_thread(self._server.token_file.read_text)
            headers["authorization"] = f"Bearer {token.strip()}"
        async with self._answer(body, headers) as answer:
            if answer.status_code in PASSING:
                raise Silent(f"it answers {answer.status_code}")
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > LARGEST_ANSWER:
                    raise Refused(f"its answer has more than {LARGEST_ANSWER} bytes")
        if answer.status_code != 200:
            told = " ".join(content[:300].decode(errors="replace").split())
            raise Refused(f"it answers {answer.status_code}: {told}", answer.status_code in OF_CONTENT)
        return bytes(content)

    @contextlib.asynccontextmanager
    async def _answer(self, body: bytes, headers: dict[str, str]) -> AsyncIterator[httpx2.Response]:
        timeout = self._server.timeout_seconds
        request = {"content": body, "headers": headers, "timeout": timeout}
        async with asyncio.timeout(timeout), self._client.stream("POST", self._server.url, **request) as answer:
            yield answer

    def _checked(self, raw: Any) -> Prediction | Failure:
        try:
            said = Prediction.model_validate(raw)
        except ValidationError as error:
            return Failure("server-answer", f"{self.provider}: its prediction does not fit: {faults(error, 3)}", True)
        if said.error is not None:
            return Failure("server-refused", f"{self.provider}: {said.error[:300]}")
        if fault := endpoints.mismatch(said, self.manifest, self._endpoint):
            return Failure("server-answer", f"{self.provider}: of its prediction: {fault}", True)
        return said

    def _outputs(self, rows: Sequence[Prediction]) -> Scored:
        labels = self.manifest.labels
        if self.manifest.answer == "detection":
            boxes, probabilities = _places([row.boxes or [] for row in rows], labels)
        else:
            boxes = None
            probabilities = np.array([[(row.probabilities or {})[name] for name in labels] for row in rows], np.float32)
        embeddings = embedded(probabilities, self.manifest)
        if self._endpoint.embedding is not None:
            embeddings = np.array([row.embedding for row in rows], np.float32)
        ood = None if self.manifest.outputs.ood is None else np.array([row.ood for row in rows], np.float32)
        return Scored(probabilities, embeddings, None, boxes, ood)

    def _note(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until, self._why = now + PAUSE, why


def _places(found: Sequence[Sequence[Box]], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, M, 4) and probabilities (N, M, C), M being the most boxes of one picture; places without one are 0."""
    most = max(map(len, found), default=0)
    sides = np.zeros((len(found), most, 4), np.float32)
    probabilities = np.zeros((len(found), most, len(labels)), np.float32)
    for row, boxes in enumerate(found):
        for place, box in enumerate(boxes):
            sides[row, place] = box.x, box.y, box.width, box.height
            probabilities[row, place, labels.index(box.label)] = box.confidence
    return sides, probabilities
