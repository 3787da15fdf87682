"""Takes down what is to be told, in the unit that hears of it, and sends it: at least once, and not for ever."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog

from services.contracts.envelope import Message
from services.contracts.events import ServiceHeartbeat, TaskQueued
from services.portal.notifications.book import Book, Row, notice, notice_id
from services.portal.notifications.channels import Channels, NotSent, Unwanted
from services.portal.notifications.config import Kind, Notifications, Rule
from services.portal.notifications.facts import Fact, Reading, fact_of, over
from services.portal.notifications.levels import Level, judged
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

KEY = "notices"
REMEMBERED = 30 * 86_400  # seconds for which a notice that was sent is not sent again
WAITING: Kind = "labels.waiting"

T = TypeVar("T")


class Desk:
    """The notices of all rules. Their record is guarded, so replicas share the work; after a crash it is sent again."""

    def __init__(self, service: Service, config: Notifications) -> None:
        self._service = service
        self.rules = {rule.name: rule for rule in config.rules}
        self._channels = Channels(config)

    @property
    def now(self) -> datetime:
        return self._service.clock.now()

    async def note(self, batch: Sequence[Message[Any]], unit: Unit) -> None:
        """Handler: what these events give to tell."""
        if not self.rules:
            return
        facts = [fact for message in batch if (fact := fact_of(message))]
        wanted = [(rule, fact) for fact in facts for rule in self._wanting(fact.kind, fact.project)]
        queued = {message.event.project for message in batch if isinstance(message.event, TaskQueued)}
        watched = {project for project in queued if self._wanting(WAITING, project)}
        beats = [message for message in batch if isinstance(message.event, ServiceHeartbeat)]
        if not (wanted or watched or beats):
            return
        book = await self._read(unit)
        for beat in beats:
            wanted += self._heard(book, beat.event, beat.time)
        book.watched = sorted({*book.watched, *watched})
        await self._add(unit, book, wanted)
        await self._write(unit, book)

    async def test(self, rule: Rule) -> str:
        """The id of a notice that only says that the way is open."""
        fact = Fact(f"test {self.now.isoformat()}", "test", "*", self.now, f"A test of the rule {rule.name}", {})

        async def work(unit: Unit) -> None:
            book = await self._read(unit)
            await self._add(unit, book, [(rule, fact)])
            await self._write(unit, book)

        await transact(self._service, work)
        return notice_id(rule, fact)

    async def look(self) -> None:
        """How many tasks wait in the projects that had some, for the rules that want to know."""
        for project in (await self.book()).watched if self.rules else ():
            try:
                stats = await self._service.peers.get("label-queue", "v1/stats", {"project": project})
            except KeyError:  # the project is gone
                stats = {"queued": 0}
            await transact(self._service, lambda unit, p=project, n=stats["queued"]: self._waiting(unit, p, n))

    async def send(self) -> None:
        """Send what is due. Each try is counted before it is made, so that none is made for ever."""
        if not self.rules or not (await self.book()).due(self.now):
            return
        due = await self._change(lambda book: book.take(self.now))
        outcomes = dict(zip((row["id"] for row in due), await asyncio.gather(*map(self._try, due)), strict=True))
        sent = {name for name, error in outcomes.items() if error is None}
        failed = {name: str(error) for name, error in outcomes.items() if error is not None}
        for_good = {name for name, error in outcomes.items() if isinstance(error, Unwanted)}
        await self._change(lambda book: book.settle(sent, failed, for_good), sent)

    async def book(self) -> Book:
        """What waits, what was given up, and what is watched."""
        entry = (await self._service.state.get([KEY])).get(KEY)
        return Book.of_record(entry.value if entry else None)

    async def close(self) -> None:
        await self._channels.close()

    def _wanting(self, kind: str, project: str) -> list[Rule]:
        return [rule for rule in self.rules.values() if rule.wants(kind, project)]

    async def _read(self, unit: Unit) -> Book:
        return Book.of_record(await unit.get(KEY))

    async def _write(self, unit: Unit, book: Book) -> None:
        if (await self._read(unit)) != book:
            unit.put(KEY, book.record(), guard=True)

    async def _change(self, work: Callable[[Book], T], sent: set[str] | None = None) -> T:
        async def whole(unit: Unit) -> T:
            book = await self._read(unit)
            answer = work(book)
            for name in sent or ():
                unit.put(_sent(name), {"at": self.now.isoformat()}, ttl=REMEMBERED)
            await self._write(unit, book)
            return answer

        return await transact(self._service, whole)

    async def _add(self, unit: Unit, book: Book, wanted: Sequence[tuple[Rule, Fact]]) -> None:
        rows = {row["id"]: row for rule, fact in wanted for row in [notice(rule, fact, self.now)]}
        known = await unit.get_many(map(_sent, rows))
        book.add([row for name, row in rows.items() if not book.knows(name) and _sent(name) not in known])

    async def _try(self, row: Row) -> NotSent | None:
        rule = self.rules.get(row["rule"])
        if rule is None:
            return Unwanted("there is no such rule any more")
        try:
            await self._channels.send(rule, row, self.now)
        except NotSent as error:
            log.warning("notice not sent", rule=rule.name, kind=row["kind"], tries=row["tries"], reason=str(error))
            return error
        return None

    # Limits.

    async def _waiting(self, unit: Unit, project: str, value: int) -> None:
        book = await self._read(unit)
        wanted = self._judged(book, Reading(WAITING, project, project, value, self.now))
        if value == 0:
            book.watched = [name for name in book.watched if name != project]
        await self._add(unit, book, wanted)
        await self._write(unit, book)

    def _heard(self, book: Book, beat: ServiceHeartbeat, at: datetime) -> list[tuple[Rule, Fact]]:
        """A shelf is its service's, whichever replica tells of it; what waits for the broker is each replica's own."""
        service = f"{beat.site}/{beat.service}"
        readings = (
            Reading("dead_letters.over", "*", service, beat.dead_letters or 0, at),
            Reading("buffer.over", "*", f"{service}/{beat.instance}", beat.waiting or 0, at),
        )
        return [told for reading in readings for told in self._judged(book, reading)]

    def _judged(self, book: Book, reading: Reading) -> list[tuple[Rule, Fact]]:
        found: list[tuple[Rule, Fact]] = []
        for rule in self._wanting(reading.kind, reading.project):
            key, limit = f"{rule.name}|{reading.kind}|{reading.of}", rule.limit(reading.kind)
            before = Level.of_record(book.levels.get(key))
            after, tell = judged(before, reading.value, limit, reading.at, timedelta(seconds=rule.quiet_seconds))
            if after is not before:
                book.levels[key] = after.record()
            if tell:
                found.append((rule, over(reading, limit, f"{key}|{after.times}")))
        return found


def _sent(name: str) -> str:
    return f"sent:{name}"
