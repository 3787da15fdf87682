/** What was just answered: the strip of the last ten, the model's other opinion, and a word at the end. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { views } from "./ahead";
import { Shown } from "./boxer";
import { printed } from "./desk";
import { listen } from "./events";
import * as work from "./labelling";
import { Button, percent, short } from "./parts";
import { Sample } from "./sample";
import { sitting } from "./today";
import { boxesOf, saidBy, type Value, words } from "./values";

/** A thumbnail with the boxes of an answer, and dashed those of the model. */
export function Thumb(props: { task: { id: string; sample_id: string }; labels: readonly string[]; value: Value | null; hint?: Value }) {
  const [boxes, hints] = [boxesOf(props.value), boxesOf(props.hint)];
  const over = boxes.length || hints.length
    ? (frame: Parameters<typeof Shown>[0]["frame"]) => (
        <>
          <Shown frame={frame} boxes={hints} labels={props.labels} dashed bare />
          <Shown frame={frame} boxes={boxes} labels={props.labels} bare />
        </>
      )
    : undefined;
  return <Sample view={views.value.get(props.task.id)} name={props.task.sample_id} small over={over} />;
}

/** The model disagrees with the answer before: one key decides, or going on keeps it. */
export function Second() {
  const open = work.disputed.value;
  if (!open) return null;
  const { item, suggestion } = open;
  const told = saidBy(suggestion);
  const short = typeof told === "string";
  return (
    <div class={`second ${boxesOf(told).length || boxesOf(item.value).length ? "large" : ""}`} role="group" aria-label="The model disagrees">
      <div class="thumb"><Thumb task={item.task} labels={item.task.labels} value={item.value} hint={told} /></div>
      <p>
        You said <b>{words(item.value)}</b>, the model <b>{words(told)}</b>{" "}
        <span class="quiet">({percent(suggestion.confidence, 0)} sure)</span>
      </p>
      <Button action={printed("keep")} onClick={() => work.decide(false)}>Keep {short ? words(item.value) : "yours"}</Button>
      <Button action={printed("change")} onClick={() => work.decide(true)}>Change to {short ? words(told) : "the model's"}</Button>
    </div>
  );
}

export function Strip() {
  const last = work.done.value.slice(-10).reverse();
  return (
    <nav class="strip" aria-label="What you have answered">
      {last.length ? null : <p class="quiet">Your last ten answers appear here; click one to answer it again.</p>}
      <ol>
        {last.map((item) => (
          <li key={item.task.id}>
            <button type="button" class={`past ${item.fate}`} onClick={() => work.undo(item)} title={item.words}
              aria-label={`Answer again: ${item.value === null ? "skipped" : words(item.value)}, ${item.words}`}>
              <Thumb task={item.task} labels={item.task.labels} value={item.value} />
              <span>{words(item.value)}</span>
            </button>
          </li>
        ))}
      </ol>
    </nav>
  );
}

/** What one has done, when there is nothing more to do. */
export function Summary() {
  const given = work.done.value.filter((item) => item.value !== null);
  if (!sitting.value || !given.length) return null;
  const times = given.flatMap((item) => item.seconds ?? []).sort((a, b) => a - b);
  const skipped = work.done.value.length - given.length;
  return (
    <p class="summary">
      <b>{sitting.value}</b> {sitting.value === 1 ? "answer" : "answers"} since you came
      {times.length ? <>, half of them within <b>{times[times.length >> 1]!.toFixed(1)} s</b></> : null}
      {skipped ? <>; {skipped} skipped</> : null}.
    </p>
  );
}

/** Another model has come into service. What is on the screen stays. */
export function Arrived() {
  const version = useSignal("");
  useEffect(() => listen((one) => {
    if (one?.type === "model.activated" || one?.type === "model.rolled_back") version.value = String(one.data.version);
  }), []);
  if (!version.value) return null;
  return (
    <p class="banner" role="status">
      <span>Another model is in service: <b>{short(version.value)}</b>. The samples before you stay; what comes after them it has looked at.</span>
      <button type="button" class="plain" aria-label="Close" onClick={() => (version.value = "")}>✕</button>
    </p>
  );
}

