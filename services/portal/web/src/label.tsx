/** The page that people label on: one at a time, many at once, or yes and no. */
import { computed, signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { actionOf, choice, type Action, keysOf, labelKeys, pressed, shown } from "./keys";
import * as work from "./labelling";
import { listen } from "./events";
import { away, waiting } from "./outbox";
import { Dialog, dialog, Key, Notice, percent, Sample } from "./parts";
import { go, search } from "./router";
import { current, project } from "./session";

type Mode = "single" | "grid" | "binary";
const MODES: Mode[] = ["single", "grid", "binary"];
const TITLES: Record<Mode, string> = { single: "One at a time", grid: "Many at once", binary: "Yes or no" };
const REASONS = ["unclear", "bad sample", "label missing", "other"];
const PAGE = 12; // samples of a grid

const mode = computed<Mode>(() => {
  const wanted = new URLSearchParams(search.value).get("mode") as Mode;
  return MODES.includes(wanted) ? wanted : "single";
});
const zoom = signal(1);
const labels = computed(() => work.task.value?.labels ?? current.value?.labels ?? []);
const keys = computed(() => (choice.value.on ? labelKeys(labels.value) : labels.value.map(() => "")));

export function Label() {
  useEffect(() => {
    void work.start();
    return listen((one) => (!one || one.type === "task.queued" || one.type === "task.released") && work.stir());
  }, [project.value]);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  useEffect(() => {
    zoom.value = 1;
  }, [work.task.value?.id]);
  return (
    <div class="label">
      <h1 class="unseen">Label samples of {project.value}</h1>
      <Bar />
      {work.task.value ? mode.value === "grid" ? <Grid /> : <Single /> : <Nothing />}
      <Second />
      <Strip />
      <p class="unseen" role="status" aria-live="polite">{work.news.value}</p>
      <Help />
      <SkipDialog />
      <Find />
    </div>
  );
}

function onKey(event: KeyboardEvent): void {
  if (dialog.value) return onDialogKey(event);
  const key = pressed(event);
  if (!key) return;
  if (mode.value === "grid" && work.task.value && gridKey(key)) return event.preventDefault();
  const at = keys.value.indexOf(key);
  if (at >= 0 && work.task.value && mode.value !== "grid") {
    event.preventDefault();
    if (!event.repeat) work.answer(labels.value[at]!);
    return;
  }
  const action = actionOf(key);
  if (action) {
    event.preventDefault();
    if (!event.repeat || action === "undo") act(action);
  }
}

function onDialogKey(event: KeyboardEvent): void {
  if (dialog.value !== "skip" || !/^[1-4]$/.test(event.key)) return;
  event.preventDefault();
  dialog.value = null;
  work.skip(REASONS[Number(event.key) - 1]!);
}

function act(action: Action): void {
  const suggestion = work.task.value?.suggestion;
  switch (action) {
    case "skip":
      if (work.task.value) dialog.value = "skip";
      return;
    case "undo":
      return work.undo();
    case "keep":
      if (work.disputed.value) return work.decide(false);
      if (mode.value === "binary" && suggestion) return work.answer(suggestion.label);
      return;
    case "change":
      if (work.disputed.value) return work.decide(true);
      if (mode.value === "binary" && suggestion) dialog.value = "find";
      return;
    case "single":
    case "grid":
    case "binary":
      return go(action === "single" ? "/label" : `/label?mode=${action}`);
    case "zoomIn":
      zoom.value = Math.min(16, zoom.value * 1.5);
      return;
    case "zoomOut":
      zoom.value = Math.max(1, zoom.value / 1.5);
      return;
    case "fit":
      zoom.value = 1;
      return;
    case "search":
      dialog.value = "find";
      return;
    case "guide":
      dialog.value = "help";
  }
}

function Bar() {
  const count = work.answered.value;
  return (
    <div class="bar">
      <div role="group" aria-label="How samples are shown" class="modes">
        {MODES.map((one) => (
          <button key={one} type="button" class="plain" aria-pressed={mode.value === one} onClick={() => act(one)}>
            {TITLES[one]}
          </button>
        ))}
      </div>
      <Saved />
      <span class="quiet count">
        <b>{count}</b> {count === 1 ? "answer" : "answers"} since you came
      </span>
      <button type="button" class="plain" onClick={() => (dialog.value = "help")}>
        Keys <Key>{keysOf("guide")[0] ? shown(keysOf("guide")[0]!) : ""}</Key>
      </button>
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

function Single() {
  const one = work.task.value!;
  const suggestion = one.suggestion;
  const asked = mode.value === "binary" && suggestion;
  return (
    <div class="single">
      <section class="stage" aria-label="Sample" data-task={one.id}>
        <Sample view={work.views.value.get(one.id)} name={one.sample_id} zoom={zoom.value} />
        {one.suggestion && mode.value !== "binary" ? (
          <p class="suggestion">The model says <b>{one.suggestion.label}</b>, {percent(one.suggestion.confidence, 0)}</p>
        ) : null}
      </section>
      <section class="answers" aria-label="Answers">
        {asked ? (
          <Asked label={suggestion.label} confidence={suggestion.confidence} />
        ) : (
          <ol class="labels">
            {one.labels.map((label, at) => (
              <li key={label}>
                <button type="button" class="choice" onClick={() => work.answer(label)} aria-keyshortcuts={keys.value[at] || undefined}>
                  <span>{label}</span>
                  <Key>{shown(keys.value[at] ?? "")}</Key>
                </button>
              </li>
            ))}
          </ol>
        )}
        {mode.value === "binary" && !asked ? (
          <p class="quiet">There is no suggestion to say yes or no to: this sample is blind, or the project tells what the model thinks after the answer.</p>
        ) : null}
        <div class="aside">
          <button type="button" onClick={() => act("skip")}>
            Skip <Key>{choice.value.on ? shown(keysOf("skip")[0] ?? "") : ""}</Key>
          </button>
          <button type="button" onClick={() => act("undo")} disabled={!work.done.value.length}>
            Undo <Key>{choice.value.on ? shown(keysOf("undo")[0] ?? "") : ""}</Key>
          </button>
        </div>
      </section>
    </div>
  );
}

function Asked(props: { label: string; confidence: number }) {
  const from = useRef(0);
  return (
    <div
      class="asked"
      onTouchStart={(event) => (from.current = event.touches[0]!.clientX)}
      onTouchEnd={(event) => {
        const way = event.changedTouches[0]!.clientX - from.current;
        if (Math.abs(way) > 60) act(way > 0 ? "keep" : "change");
      }}
    >
      <p>Is this <b>{props.label}</b>?</p>
      <button type="button" class="choice" onClick={() => act("keep")}>
        <span>Yes</span> <Key>{shown(keysOf("keep")[0] ?? "")}</Key>
      </button>
      <button type="button" class="choice" onClick={() => act("change")}>
        <span>No, another label</span> <Key>{shown(keysOf("change")[0] ?? "")}</Key>
      </button>
    </div>
  );
}

// Many at once: a page of samples that stays until it is confirmed.

const page = computed(() => work.queue.value.slice(0, PAGE));
const picked = signal<ReadonlyMap<string, string>>(new Map()); // task -> label, or "" for left out
const cell = signal(0);

function gridKey(key: string): boolean {
  const columns = gridColumns();
  const moves: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const last = page.value.length - 1;
  if (key in moves) {
    cell.value = Math.max(0, Math.min(last, cell.value + moves[key]!));
    return true;
  }
  if (key === "Enter") return confirm(), true;
  if (key === "x") return pick(""), true;
  const at = keys.value.indexOf(key);
  if (at < 0) return false;
  pick(labels.value[at]!);
  return true;
}

function gridColumns(): number {
  const list = document.querySelector(".grid ol");
  return list ? getComputedStyle(list).gridTemplateColumns.split(" ").length : 4;
}

function pick(label: string): void {
  const one = page.value[Math.min(cell.value, page.value.length - 1)];
  if (!one) return;
  picked.value = new Map([...picked.value, [one.id, label]]);
  work.news.value = label ? `${label}, sample ${cell.value + 1}` : `Sample ${cell.value + 1} left out`;
  if (cell.value < page.value.length - 1) cell.value += 1;
}

function confirm(): void {
  const said = page.value.filter((one) => picked.value.get(one.id));
  const out = page.value.filter((one) => picked.value.get(one.id) === "");
  for (const one of said) work.answer(picked.value.get(one.id)!, one);
  for (const one of out) work.skip("left out", one);
  picked.value = new Map();
  cell.value = 0;
  work.news.value = `${said.length} saved, ${out.length} left out.`;
}

function Grid() {
  const tasks = page.value;
  const ready = tasks.filter((one) => picked.value.has(one.id)).length;
  return (
    <div class="grid">
      <ol role="listbox" aria-label="Samples" aria-activedescendant={`cell-${cell.value}`} tabIndex={0}>
        {tasks.map((one, at) => {
          const label = picked.value.get(one.id);
          return (
            <li
              key={one.id}
              id={`cell-${at}`}
              role="option"
              aria-selected={cell.value === at}
              aria-label={`Sample ${at + 1}: ${label === undefined ? "no label yet" : label || "left out"}`}
              class={label === "" ? "out" : label ? "picked" : ""}
              onClick={() => (cell.value = at)}
            >
              <Sample view={work.views.value.get(one.id)} name={one.sample_id} small />
              <span class="tag">{label === undefined ? "·" : label || "left out"}</span>
            </li>
          );
        })}
      </ol>
      <section class="answers" aria-label="Answers">
        <ol class="labels">
          {labels.value.map((label, at) => (
            <li key={label}>
              <button type="button" class="choice" onClick={() => pick(label)}>
                <span>{label}</span>
                <Key>{shown(keys.value[at] ?? "")}</Key>
              </button>
            </li>
          ))}
        </ol>
        <div class="aside">
          <button type="button" onClick={() => pick("")}>Leave out <Key>X</Key></button>
          <button type="button" class="primary" onClick={confirm} disabled={!ready}>
            Save {ready || ""} <Key>⏎</Key>
          </button>
        </div>
      </section>
    </div>
  );
}

function Nothing() {
  const why = work.reason.value;
  switch (work.phase.value) {
    case "empty":
      return (
        <Notice title="Nothing to ask right now">
          <p>
            Every sample that was chosen has its answer. New questions come when samples come in that the model is unsure
            about, or when a model that learnt from your answers takes over. This page looks by itself.
          </p>
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

/** The model disagrees with the answer before: one key decides, or going on keeps it. */
function Second() {
  const open = work.disputed.value;
  if (!open) return null;
  const { item, suggestion } = open;
  return (
    <div class="second" role="group" aria-label="The model disagrees">
      <div class="thumb"><Sample view={work.views.value.get(item.task.id)} name={item.task.sample_id} small /></div>
      <p>
        You said <b>{item.value}</b>, the model <b>{suggestion.label}</b>{" "}
        <span class="quiet">({percent(suggestion.confidence, 0)} sure)</span>
      </p>
      <button type="button" onClick={() => work.decide(false)}>Keep {item.value} <Key>{shown(keysOf("keep")[0] ?? "")}</Key></button>
      <button type="button" onClick={() => work.decide(true)}>Change to {suggestion.label} <Key>{shown(keysOf("change")[0] ?? "")}</Key></button>
    </div>
  );
}

function Strip() {
  const last = work.done.value.slice(-10).reverse();
  return (
    <nav class="strip" aria-label="What you have answered">
      {last.length ? null : <p class="quiet">Your last ten answers appear here; click one to answer it again.</p>}
      <ol>
        {last.map((item) => (
          <li key={item.task.id}>
            <button type="button" class={`past ${item.fate}`} onClick={() => work.undo(item)} title={item.words}
              aria-label={`Answer again: ${item.value ?? "skipped"}, ${item.words}`}>
              <Sample view={work.views.value.get(item.task.id)} name={item.task.sample_id} small />
              <span>{item.value ?? "skip"}</span>
            </button>
          </li>
        ))}
      </ol>
    </nav>
  );
}

function SkipDialog() {
  return (
    <Dialog name="skip" title="Why is there no answer?">
      <ol class="labels">
        {REASONS.map((why, at) => (
          <li key={why}>
            <button type="button" class="choice" onClick={() => ((dialog.value = null), work.skip(why))}>
              <span>{why}</span> <Key>{String(at + 1)}</Key>
            </button>
          </li>
        ))}
      </ol>
    </Dialog>
  );
}

/** Find a label by its name; for more labels than there are keys. */
function Find() {
  const text = useSignal("");
  const found = labels.value.filter((label) => label.toLowerCase().includes(text.value.trim().toLowerCase()));
  const take = (label: string | undefined) => {
    if (!label) return;
    dialog.value = null;
    text.value = "";
    work.answer(label);
  };
  return (
    <Dialog name="find" title="Find a label">
      <form onSubmit={(event) => (event.preventDefault(), take(found[0]))}>
        <label class="unseen" for="find-text">Part of the label's name</label>
        <input id="find-text" type="search" autoFocus autocomplete="off" value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
      </form>
      <ol class="labels found">
        {found.slice(0, 12).map((label) => (
          <li key={label}><button type="button" class="choice" onClick={() => take(label)}><span>{label}</span></button></li>
        ))}
      </ol>
    </Dialog>
  );
}

function Help() {
  const rows: [string, string][] = [
    ["Choose a label", keys.value.filter(Boolean).map(shown).join(" ")],
    ["Skip", keysOf("skip").map(shown).join(" ")],
    ["Take back (50 deep)", keysOf("undo").map(shown).join(" ")],
    ["Keep / change, yes / no", [...keysOf("keep"), ...keysOf("change")].map(shown).join(" ")],
    ["Find a label", keysOf("search").map(shown).join(" ")],
    ["Closer, farther, whole", [...keysOf("zoomIn"), ...keysOf("zoomOut"), ...keysOf("fit")].map(shown).join(" ")],
    ["One, many, yes or no", [...keysOf("single"), ...keysOf("grid"), ...keysOf("binary")].map(shown).join(" ")],
    ["Many: move, leave out, save", "← → ↑ ↓ X ⏎"],
    ["This help", keysOf("guide").map(shown).join(" ")],
  ];
  return (
    <Dialog name="help" title="Keys">
      <table class="keys">
        <tbody>
          {rows.map(([what, which]) => (
            <tr key={what}>
              <th scope="row">{what}</th>
              <td>{which.split(" ").map((key) => <Key key={key}>{key}</Key>)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="quiet">
        Answers are saved behind your back: go on at once. What the network does not take now is kept in this browser and
        sent later, once. Change the keys, or switch them off, under <a href="/settings">Settings</a>.
      </p>
    </Dialog>
  );
}
