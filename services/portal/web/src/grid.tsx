/** Many at once: a page of samples that stays until it is confirmed. */
import { computed, signal } from "@preact/signals";
import { news, queue, views } from "./ahead";
import { keys, labels } from "./desk";
import { shown } from "./keys";
import * as work from "./labelling";
import { Key } from "./parts";
import { Sample } from "./sample";

const PAGE = 12; // samples of a grid

const page = computed(() => queue.value.slice(0, PAGE));
const picked = signal<ReadonlyMap<string, string>>(new Map()); // task -> label, or "" for left out
const cell = signal(0);
const anchor = signal<number | null>(null); // where a range began

/** The cells that a label goes to, first and last. */
const range = computed<[number, number]>(() => {
  const from = anchor.value ?? cell.value;
  return [Math.min(from, cell.value), Math.min(Math.max(from, cell.value), page.value.length - 1)];
});

export function gridKey(key: string, shift: boolean): boolean {
  const columns = gridColumns();
  const moves: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const last = page.value.length - 1;
  if (key in moves) {
    anchor.value = shift ? (anchor.value ?? cell.value) : null;
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
  const [first, last] = range.value;
  picked.value = new Map([...picked.value, ...page.value.slice(first, last + 1).map((one) => [one.id, label] as const)]);
  const which = first === last ? `sample ${first + 1}` : `samples ${first + 1} to ${last + 1}`;
  news.value = `${which}: ${label || "left out"}`;
  anchor.value = null;
  cell.value = Math.min(last + 1, page.value.length - 1);
}

function confirm(): void {
  const said = page.value.filter((one) => picked.value.get(one.id));
  const out = page.value.filter((one) => picked.value.get(one.id) === "");
  for (const one of said) work.answer(picked.value.get(one.id)!, one);
  for (const one of out) work.skip("left out", one);
  picked.value = new Map();
  cell.value = 0;
  news.value = `${said.length} saved, ${out.length} left out.`;
}

export function Grid() {
  const tasks = page.value;
  const ready = tasks.filter((one) => picked.value.has(one.id)).length;
  const [first, last] = range.value;
  return (
    <div class="grid">
      <ol role="listbox" aria-label="Samples" aria-multiselectable="true" aria-activedescendant={`cell-${cell.value}`} tabIndex={0}>
        {tasks.map((one, at) => {
          const label = picked.value.get(one.id);
          return (
            <li
              key={one.id}
              id={`cell-${at}`}
              role="option"
              aria-selected={at >= first && at <= last}
              aria-label={`Sample ${at + 1}: ${label === undefined ? "no label yet" : label || "left out"}`}
              class={label === "" ? "out" : label ? "picked" : ""}
              onClick={(event) => ((anchor.value = event.shiftKey ? (anchor.value ?? cell.value) : null), (cell.value = at))}
            >
              <Sample view={views.value.get(one.id)} name={one.sample_id} small />
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
