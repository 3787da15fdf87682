/** What helps while labelling: the guide with examples, the keys, finding a label, and why there is no answer. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get } from "./api";
import { views } from "./ahead";
import { asked, keys, labels, name, REASONS } from "./desk";
import type { Page } from "./figures";
import { ACTIONS, type Action, keysOf, shown } from "./keys";
import * as work from "./labelling";
import { Dialog, dialog, Key } from "./parts";
import { Thumb } from "./past";
import { current } from "./session";
import { classesOf, type Value, words } from "./values";
import { viewOf } from "./views";

export function SkipDialog() {
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
export function Find() {
  const text = useSignal("");
  const found = labels.value.filter((label) => label.toLowerCase().includes(text.value.trim().toLowerCase()));
  const take = (label: string | undefined) => {
    if (!label) return;
    dialog.value = null;
    text.value = "";
    name(label);
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

const EXAMPLES = 3; // of each label
const LOOKED = 200; // accepted samples among which they are

interface Accepted {
  id: string;
  sample_id: string;
  value: Value;
}

/** Accepted samples that one may see: of each label a few. */
async function examples(): Promise<Map<string, Accepted[]>> {
  const page = await get<Page<Accepted>>("/api/label-queue/v1/tasks", { state: "accepted", limit: LOOKED });
  const found = new Map<string, Accepted[]>();
  for (const one of page.items)
    for (const label of classesOf(one.value)) {
      const some = found.get(label) ?? [];
      if (some.length < EXAMPLES) found.set(label, [...some, one]);
    }
  const shownOnes = new Set([...found.values()].flat());
  await Promise.all([...shownOnes].map(async (one) => {
    const view = await viewOf(one.id, null);
    views.value = new Map([...views.value, [one.id, view]]);
  }));
  return found;
}

const ABOUT: Record<"all" | "detection", Action[]> = {
  all: ["skip", "undo", "keep", "change", "search", "zoomIn", "zoomOut", "fit", "single", "grid", "binary", "guide"],
  detection: ["confirm", "newBox", "extreme", "nextBox", "removeBox"],
};

export function Guide() {
  const found = useSignal<Map<string, Accepted[]>>(new Map());
  const open = dialog.value === "help";
  useEffect(() => {
    if (open) void examples().then((some) => (found.value = some), () => undefined);
  }, [open]);
  const rows: [string, readonly string[]][] = [
    ["Choose a label", keys.value.filter(Boolean)],
    ...[...(asked.value === "detection" ? ABOUT.detection : []), ...ABOUT.all].map((action): [string, readonly string[]] => [ACTIONS[action][0], keysOf(action)]),
    ...(asked.value === "detection"
      ? ([["Move a box; with Alt size it; with Shift ten pixels", ["←", "→", "↑", "↓"]], ["Step back, forth", ["Ctrl+Z", "Ctrl+Y"]]] as [string, string[]][])
      : asked.value === "classification" ? ([["Many: move, with Shift a range; leave out; save", ["← → ↑ ↓", "X", "⏎"]]] as [string, string[]][]) : []),
  ];
  return (
    <Dialog name="help" title="Guide" drawer>
      {current.value?.guide ? <p class="guide">{current.value.guide}</p> : null}
      {found.value.size ? (
        <section aria-label="Examples">
          <h3>As it was labelled before</h3>
          <dl class="examples">
            {labels.value.filter((label) => found.value.has(label)).map((label) => (
              <div key={label}>
                <dt>{label}</dt>
                <dd>{found.value.get(label)!.map((one) => <span key={one.id} class="thumb" title={words(one.value)}><Thumb task={one} labels={labels.value} value={one.value} /></span>)}</dd>
              </div>
            ))}
          </dl>
        </section>
      ) : null}
      <h3>Keys</h3>
      <table class="keys">
        <tbody>
          {rows.map(([what, which]) => (
            <tr key={what}>
              <th scope="row">{what}</th>
              <td>{which.map((key) => <Key key={key}>{shown(key)}</Key>)}</td>
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
