/** What is on the desk: how samples are shown, how close, and the answer in the making; and what each key does to it. */
import { computed, effect, signal } from "@preact/signals";
import { news, task } from "./ahead";
import * as draft from "./boxes";
import { type Action, choice, keysOf, labelKeys } from "./keys";
import * as work from "./labelling";
import { dialog } from "./parts";
import { go, search } from "./router";
import { type Lens, nearer, WHOLE } from "./sample";
import { current } from "./session";
import { askedBy, boxesOf, saidBy, type Value, words } from "./values";

export type Mode = "single" | "grid" | "binary" | "box";
export const TITLES: Record<Mode, string> = { single: "One at a time", grid: "Many at once", binary: "Yes or no", box: "Boxes" };
const MODES = { classification: ["single", "grid", "binary"], "multi-label": ["single", "binary"], detection: ["box", "binary"] } as const;
export const REASONS = ["unclear", "bad sample", "label missing", "other"];

export const asked = computed(() => askedBy(current.value?.task ?? "image-classification"));
export const modes = computed<readonly Mode[]>(() => MODES[asked.value]);
export const mode = computed<Mode>(() => {
  const wanted = new URLSearchParams(search.value).get("mode") as Mode;
  return modes.value.includes(wanted) ? wanted : modes.value[0]!;
});
export const labels = computed(() => task.value?.labels ?? current.value?.labels ?? []);
export const keys = computed(() => (choice.value.on ? labelKeys(labels.value) : labels.value.map(() => "")));
export const lens = signal<Lens>(WHOLE);
export const ticks = signal<readonly string[]>([]); // of several labels
export const suggestion = computed(() => task.value?.suggestion ?? null); // one that is shown before the answer
const place = computed(() => task.value?.id);

/** A sample comes onto the desk: nothing is left of the one before, and an answer that was taken back is there again. */
effect(() => {
  place.value;
  const from = task.peek()?.draft;
  lens.value = WHOLE;
  ticks.value = Array.isArray(from) ? from : [];
  draft.begin(boxesOf(from));
});
effect(() => {
  if (!labels.value.includes(draft.brush.value)) draft.brush.value = labels.value[0] ?? "";
});

/** What would be saved now, of an answer that is made in steps; null of one that is a single choice. */
export const made = computed<Value | null>(() => {
  if (asked.value === "multi-label") return labels.value.filter((label) => ticks.value.includes(label));
  return asked.value === "detection" ? { boxes: draft.draft.value.boxes } : null;
});

/** A label is named: it is the answer, or one of several, or that of a box. */
export function name(label: string): void {
  if (asked.value === "multi-label") {
    const on = !ticks.value.includes(label);
    ticks.value = on ? [...ticks.value, label] : ticks.value.filter((one) => one !== label);
    news.value = `${label} ${on ? "on" : "off"}`;
  } else if (asked.value === "detection") draft.paint(label);
  else work.answer(label);
}

export function confirm(): void {
  if (made.value && task.value) work.answer(made.value);
}

/** Begin from what the model suggests. */
export function takeOver(): void {
  if (!suggestion.value) return;
  const value = saidBy(suggestion.value);
  if (Array.isArray(value)) ticks.value = value;
  if (asked.value === "detection") draft.set({ boxes: boxesOf(value), at: -1 });
  news.value = `Taken over: ${words(value)}.`;
}

export function act(action: Action): void {
  switch (action) {
    case "skip":
      if (task.value) dialog.value = "skip";
      return;
    case "undo":
      return work.undo();
    case "confirm":
      return confirm();
    case "keep":
      if (work.disputed.value && !draft.begun.value) return work.decide(false);
      if (mode.value === "binary" && suggestion.value) return work.answer(saidBy(suggestion.value));
      return takeOver();
    case "change":
      if (work.disputed.value && !draft.begun.value) return work.decide(true);
      if (mode.value === "binary" && suggestion.value) return refuse();
      if (mode.value === "box") draft.next();
      return;
    case "nextBox":
      return draft.next();
    case "single":
    case "grid":
    case "binary":
      return go(action === "single" ? "/label" : `/label?mode=${action}`);
    case "zoomIn":
      lens.value = nearer(lens.value, 1.5);
      return;
    case "zoomOut":
      lens.value = nearer(lens.value, 1 / 1.5);
      return;
    case "fit":
      lens.value = WHOLE;
      return;
    case "search":
      dialog.value = "find";
      return;
    case "guide":
      dialog.value = "help";
  }
}

/** Not what the model says: another label, or its answer to be corrected. */
function refuse(): void {
  if (asked.value === "classification") {
    dialog.value = "find";
    return;
  }
  go("/label");
  takeOver();
}

/** The first key of an action, as it is printed on a button; none where single keys are off. */
export function printed(action: Action): string {
  const key = keysOf(action)[0] ?? "";
  return choice.value.on || key.length > 1 ? key : "";
}
