"""`halfsure label-studio`: people label in Label Studio, and their answers come back into the queue."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.cli.reaching import ProjectOption, TokenOption, UrlOption, reach, run
from services.cli.rest import Away, Refused, Rest
from services.cli.studio.connector import Connector, Options, Told
from services.cli.studio.news import News
from services.cli.studio.server import Studio, StudioRefused
from services.cli.terminal import HomeOption, JsonOption, app, err, fail, out

PATH = "/label-studio"

studio_app = typer.Typer(no_args_is_help=True, help="Have people label in Label Studio: tasks out, annotations back.")
app.add_typer(studio_app, name="label-studio")

StudioUrl = Annotated[str, typer.Option("--studio", envvar="LABEL_STUDIO_URL", help="Address of Label Studio.")]
StudioToken = Annotated[
    str,
    typer.Option(
        "--studio-token", envvar="LABEL_STUDIO_API_KEY", help="A token for it; better in LABEL_STUDIO_API_KEY."
    ),
]
Most = Annotated[int, typer.Option("--most", min=1, help="Tasks that are there at a time.")]
Predictions = Annotated[
    bool,
    typer.Option(
        "--predictions/--no-predictions",
        help="Show people what the model says before they answer; it sways them (default: only order by it).",
    ),
]


@studio_app.command()
def sync(
    studio: StudioUrl,
    studio_token: StudioToken,
    most: Most = 1000,
    predictions: Predictions = False,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Bring both sides up to date, once: answers in, what is closed out of there, what waits in there.

    Safe to repeat, and to stop. The project in Label Studio is called "halfsure PROJECT", and made if it is not there.
    """

    async def work(rest: Rest) -> Connector:
        with _bars() as told:
            return await _with(rest, Studio(studio, studio_token), Options(project, most, predictions), told, _once)

    _say(run(reach(home, url, token, project), work), json)


@studio_app.command()
def serve(
    studio: StudioUrl,
    studio_token: StudioToken,
    most: Most = 1000,
    predictions: Predictions = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks at all tasks.")] = 60.0,
    listen: Annotated[
        str | None, typer.Option("--listen", help="HOST:PORT on which Label Studio may tell of annotations at once.")
    ] = None,
    hook_url: Annotated[
        str | None, typer.Option("--hook-url", help="That address as Label Studio sees it (default: as it is).")
    ] = None,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Do the same again and again, and at once where Label Studio tells of an annotation (its webhooks)."""
    from services.cli.studio.hook import listening  # a web framework, which no other command needs

    place = _place(listen) if listen else None

    async def work(rest: Rest) -> Connector:
        news, secret = News(), secrets.token_urlsafe(32)

        async def go_on(connector: Connector, server: Studio) -> None:
            err.print(f"Project {connector.number} at {studio}; Ctrl+C ends it.", highlight=False, soft_wrap=True)
            if place is None:
                return await _forever(connector, news, every)
            async with listening(news, secret, *place):
                address = f"{(hook_url or f'http://{listen}').rstrip('/')}{PATH}"
                hook = await server.hook(connector.number, address, secret)
                try:
                    await _forever(connector, news, every)
                finally:
                    await server.unhook(hook)

        options = Options(project, most, predictions)
        return await _with(rest, Studio(studio, studio_token), options, lambda *_: None, go_on)

    try:
        run(reach(home, url, token, project), work)
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("Stopped; the same command goes on.", highlight=False)


async def _with(
    rest: Rest, studio: Studio, options: Options, told: Told, work: Callable[[Connector, Studio], Awaitable[None]]
) -> Connector:
    connector = Connector(rest, studio, options, told)
    try:
        await connector.begin()
        await work(connector, studio)
    finally:
        await studio.close()
    return connector


async def _once(connector: Connector, _: Studio) -> None:
    await connector.sync()


async def _forever(connector: Connector, news: News, every: float) -> None:
    """Look at all, then at what there is news of; a side that is away is waited for."""
    tasks: set[int] | None = None
    while True:
        try:
            await (connector.sync() if tasks is None else connector.look(sorted(tasks)))
        except (StudioRefused, Refused, Away) as error:
            fail(f"{error}; it is tried again")
            await asyncio.sleep(min(every, 5.0))
            news.tell(None)
        tasks = await news.wait(every)


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter("say HOST:PORT, such as 127.0.0.1:8200")
    return host, int(port)


def _bars():
    """A bar for each thing that is done, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return _Bars(Progress(*columns, console=err, transient=True, disable=not err.is_terminal))


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, int] = {}

    def __enter__(self) -> Told:
        self._progress.start()
        return self._move

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _move(self, what: str, done: int, total: int) -> None:
        bar = self._bars.setdefault(what, -1)
        if bar < 0:
            bar = self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(bar, completed=done, total=total)  # type: ignore[arg-type]


def _say(connector: Connector, as_json: bool) -> None:
    counts = {name: count for name, count in sorted(connector.counts.items()) if count}
    if as_json:
        out.print_json(data={"studio_project": connector.number, **counts})
        return
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "nothing new"
    out.print(f"Label Studio project {connector.number}: {told}", highlight=False)
