/** The page that people label on: one at a time, many at once, yes and no, or boxes. */
import { useEffect } from "preact/hooks";
import { news, phase, reason, stir, task, views } from "./ahead";
import { get } from "./api";
import { boxKey } from "./boxer";
import { Answers } from "./choosing";
import { act, asked, keys, labels, type Mode, mode, modes, name, printed, REASONS, TITLES } from "./desk";
import { listen } from "./events";
import { Grid, gridKey } from "./grid";
import { Find, Guide, SkipDialog } from "./guide";
import { actionOf, pressed } from "./keys";
import * as work from "./labelling";
import { Arrived, Second, Strip, Summary } from "./past";
import { away, waiting } from "./outbox";
import { Button, dialog, Notice, useLive } from "./parts";
import { go } from "./router";
import { project } from "./session";
import { answeredToday, goal, sitting } from "./today";

export function Label() {
  useEffect(() => {
    void work.start();
    return listen((one) => (!one || one.type === "task.queued" || one.type === "task.released") && stir());
  }, [project.value]);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return (
    <div class="label">
      <h1 class="unseen">Label samples of {project.value}</h1>
      <Bar />
      <Arrived />
      {task.value ? mode.value === "grid" ? <Grid /> : <Answers /> : <Nothing />}
      <Second />
      <Strip />
      <p class="unseen" role="status" aria-live="polite">{news.value}</p>
      <Guide />
      <SkipDialog />
      <Find />
    </div>
  );
}

function onKey(event: KeyboardEvent): void {
  if (dialog.value) return onDialogKey(event);
  if (mode.value === "box" && task.value && boxKey(event, pixel())) return event.preventDefault();
  const key = pressed(event);
  if (!key) return;
  if (mode.value === "grid" && task.value && gridKey(key, event.shiftKey)) return event.preventDefault();
  const at = keys.value.indexOf(key);
  if (at >= 0 && task.value && mode.value !== "grid") {
    event.preventDefault();
    if (!event.repeat) name(labels.value[at]!);
    return;
  }
  const action = actionOf(key);
  if (action === "confirm" && asked.value === "classification") return;
  if (action) {
    event.preventDefault();
    if (!event.repeat || action === "undo") act(action);
  }
}

/** One pixel of the picture that is asked about, in fractions of it. */
function pixel(): { x: number; y: number } {
  const view = views.value.get(task.value!.id);
  return view?.kind === "image" ? { x: 1 / view.bitmap.width, y: 1 / view.bitmap.height } : { x: 0.01, y: 0.01 };
}

function onDialogKey(event: KeyboardEvent): void {
  if (dialog.value !== "skip" || !/^[1-4]$/.test(event.key)) return;
  event.preventDefault();
  dialog.value = null;
  work.skip(REASONS[Number(event.key) - 1]!);
}

function Bar() {
  const [count, today] = [sitting.value, answeredToday()];
  return (
    <div class="bar">
      <div role="group" aria-label="How samples are shown" class="modes">
        {modes.value.map((one: Mode, at) => (
          <button key={one} type="button" class="plain" aria-pressed={mode.value === one} onClick={() => go(at ? `/label?mode=${one}` : "/label")}>
            {TITLES[one]}
          </button>
        ))}
      </div>
      <Saved />
      <span class="quiet count">
        <b>{count}</b> {count === 1 ? "answer" : "answers"} since you came
        {goal.value ? <>, <b>{today}</b> of {goal.value} today <progress max={goal.value} value={today} aria-label="Of today's goal" /></> : today > count ? <>, <b>{today}</b> today</> : null}
      </span>
      <Button plain action={printed("guide")} onClick={() => (dialog.value = "help")}>Guide</Button>
    </div>
  );
}

/** One dot: all is with the server, something is on its way, or it is kept here for later. */
function Saved() {
  const count = waiting.value;
  if (away.value && count)
    return <span class="kept away" title={away.value}>Offline · {count} kept in this browser</span>;
  return <span class={`kept ${count ? "busy" : "all"}`}>{count ? `Saving ${count}` : "All saved"}</span>;
}

/** What the selection waits for before it asks again. */
function NextBatch() {
  const { value } = useLive(() => get<{ waiting_for: string | null }>("/api/select-uncertain/v1/stats"), 2000);
  return value?.waiting_for ? <p>The next questions: {value.waiting_for}.</p> : null;
}

function Nothing() {
  const why = reason.value;
  switch (phase.value) {
    case "empty":
      return (
        <Notice title="Nothing to ask right now">
          <Summary />
          <p>
            Every sample that was chosen has its answer. New questions come when samples come in that the model is unsure
            about, or when a model that learnt from your answers takes over. This page looks by itself.
          </p>
          <NextBatch />
          {project.value ? <p><a href="/dashboard">What the loop is doing</a></p> : null}
        </Notice>
      );
    case "leased":
      return why === "own" ? (
        <Notice title="You have as many samples as anybody may hold">
          <p>They are open in another tab, or in a page that was closed. They are free again within two minutes.</p>
        </Notice>
      ) : (
        <Notice title="Others are at the last ones">
          <Summary />
          <p>
            {why} {why === "1" ? "sample is" : "samples are"} with other people. Whatever they leave comes here by itself.
          </p>
        </Notice>
      );
    case "away":
      return (
        <Notice title="The queue does not answer" tone="bad">
          <p>{why} What you have answered is kept in this browser and sent once it is back; you may close the page.</p>
        </Notice>
      );
    case "forbidden":
      return <Notice title="Not for this token" tone="bad"><p>{why} Ask for a token of an annotator.</p></Notice>;
    case "failed":
      return (
        <Notice title="It cannot go on" tone="bad">
          <p>{why}</p>
          <button type="button" onClick={() => work.start()}>Try again</button>
        </Notice>
      );
    default:
      return <div class="single"><section class="stage" aria-busy="true"><p class="quiet">Fetching samples …</p></section></div>;
  }
}
