/** One sample, and the answer to it: one label, several, boxes, or yes and no. */
import { useRef } from "preact/hooks";
import { task, views } from "./ahead";
import { Boxer, newBox, Shown, toggleExtreme } from "./boxer";
import * as draft from "./boxes";
import { act, asked, confirm, keys, labels, lens, made, mode, name, printed, suggestion, takeOver, ticks } from "./desk";
import { shown } from "./keys";
import * as work from "./labelling";
import { Button, Key, percent } from "./parts";
import { type Frame, Sample } from "./sample";
import { boxesOf, saidBy, type Suggestion, words } from "./values";

export function Answers() {
  const one = task.value!;
  const told = suggestion.value;
  const yesNo = mode.value === "binary" && told;
  const hints = told ? boxesOf(saidBy(told)) : [];
  const over = asked.value !== "detection" ? undefined : (frame: Frame) =>
    mode.value === "box" ? <Boxer frame={frame} labels={one.labels} hints={hints} /> : <Shown frame={frame} boxes={hints} labels={one.labels} dashed />;
  return (
    <div class="single">
      <section class="stage" aria-label="Sample" data-task={one.id}>
        <Sample view={views.value.get(one.id)} name={one.sample_id} look={{ lens: lens.value, move: (to) => (lens.value = to) }} over={over} />
        {told && mode.value !== "binary" ? <Told of={told} /> : null}
      </section>
      <section class="answers" aria-label="Answers">
        {yesNo ? <YesNo of={told} /> : mode.value === "binary" && asked.value === "detection" ? null : <Labels />}
        {mode.value === "binary" && !yesNo ? (
          <p class="quiet">There is no suggestion to say yes or no to: this sample is blind, or the project tells what the model thinks after the answer.</p>
        ) : null}
        {mode.value === "box" ? <BoxTools /> : null}
        <div class="aside">
          {made.value && !yesNo ? (
            <Button class="primary whole" action={printed("confirm")} onClick={confirm}>{asked.value === "detection" ? `Confirm: ${words(made.value)}` : words(made.value) === "none" ? "Confirm: none of them" : "Confirm"}</Button>
          ) : null}
          <Button action={printed("skip")} onClick={() => act("skip")}>Skip</Button>
          <Button action={printed("undo")} onClick={() => act("undo")} disabled={!work.done.value.length}>Undo</Button>
        </div>
      </section>
    </div>
  );
}

function Told(props: { of: Suggestion }) {
  const value = saidBy(props.of);
  return (
    <p class="suggestion">
      The model says <b>{words(value)}</b>, {percent(props.of.confidence, 0)}
      {typeof value === "string" ? null : <Button class="small" action={printed("keep")} onClick={takeOver}>Take over</Button>}
    </p>
  );
}

function Labels() {
  const chosen = draft.chosen.value?.label ?? draft.brush.value;
  const state = (label: string) => (asked.value === "multi-label" ? ticks.value.includes(label) : asked.value === "detection" ? label === chosen : undefined);
  return (
    <ol class={`labels ${asked.value}`}>
      {labels.value.map((label, at) => (
        <li key={label}>
          <button type="button" class={`choice k${at % 8}`} onClick={() => name(label)} aria-pressed={state(label)} aria-keyshortcuts={keys.value[at] || undefined}>
            <span>{label}</span>
            <Key>{shown(keys.value[at] ?? "")}</Key>
          </button>
        </li>
      ))}
    </ol>
  );
}

function BoxTools() {
  const clicks = draft.extremes.value;
  return (
    <div class="box-tools" role="group" aria-label="Boxes">
      <p class="quiet" role="status">
        {clicks ? `Click the topmost, leftmost, lowest and rightmost point, in any order: ${clicks.length} of 4.` : "Drag over the picture, or make a box by key: arrows move it, with Alt they size it, with Shift ten pixels at a time."}
      </p>
      <div class="tools">
        <Button action={printed("newBox")} onClick={newBox}>New box</Button>
        <Button action={printed("extreme")} onClick={toggleExtreme} pressed={clicks !== null}>Four clicks</Button>
        <Button action={printed("nextBox")} onClick={() => draft.next()} disabled={!draft.draft.value.boxes.length}>Next</Button>
        <Button action={printed("removeBox")} onClick={draft.remove} disabled={!draft.chosen.value}>Remove</Button>
        <Button action="Ctrl Z" onClick={() => draft.back()} disabled={!draft.begun.value}>Step back</Button>
      </div>
    </div>
  );
}

function YesNo(props: { of: Suggestion }) {
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
      <p>Is this <b>{words(saidBy(props.of))}</b>?</p>
      <Button class="choice" action={printed("keep")} onClick={() => act("keep")}>Yes</Button>
      <Button class="choice" action={printed("change")} onClick={() => act("change")}>{asked.value === "classification" ? "No, another label" : "No, correct it"}</Button>
    </div>
  );
}
