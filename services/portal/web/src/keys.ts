/** What keys do: defaults, what the user has changed, and the switch for those of a single character (WCAG 2.1.4). */
import { signal } from "@preact/signals";

export const ACTIONS = {
  skip: ["Skip this sample", [" ", "s"]],
  undo: ["Take the last answer back", ["Backspace", "u"]],
  confirm: ["Confirm (several labels, boxes)", ["Enter"]],
  keep: ["Keep your answer / yes", ["y"]],
  change: ["Take the model's answer / no", ["n"]],
  single: ["One at a time", ["i"]],
  grid: ["Many at once", ["g"]],
  binary: ["Yes or no", ["b"]],
  zoomIn: ["Closer", ["+", "="]],
  zoomOut: ["Farther", ["-"]],
  fit: ["Whole sample", ["z"]],
  search: ["Find a label", ["/", "l"]],
  newBox: ["Box: a new one in the middle", ["a"]],
  extreme: ["Box: by clicks on its four extremes", ["e"]],
  nextBox: ["Box: the next", ["n"]],
  removeBox: ["Box: remove", ["Delete"]],
  guide: ["Guide, and what the keys do", ["h", "?"]],
} as const satisfies Record<string, readonly [string, readonly string[]]>;
export type Action = keyof typeof ACTIONS;

interface Choice {
  on: boolean;
  own: Partial<Record<Action, string[]>>;
}
const STORE = "halfsure.keys";

function read(): Choice {
  try {
    return { on: true, own: {}, ...(JSON.parse(localStorage.getItem(STORE) ?? "{}") as Partial<Choice>) };
  } catch {
    return { on: true, own: {} };
  }
}
export const choice = signal<Choice>(read());

export function change(next: Choice): void {
  choice.value = next;
  localStorage.setItem(STORE, JSON.stringify(next));
}

export function keysOf(action: Action): readonly string[] {
  return choice.value.own[action] ?? ACTIONS[action][1];
}

/** What is printed on a button. */
export function shown(key: string): string {
  const names: Record<string, string> = {
    " ": "Space",
    Backspace: "Bksp",
    ArrowLeft: "←",
    ArrowRight: "→",
    Enter: "⏎",
    Delete: "Del",
  };
  return names[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** One key for each label: its own name if that is one character, else 1-9, 0, and with Shift the next ten. */
export function labelKeys(labels: readonly string[]): string[] {
  const taken = new Set((Object.keys(ACTIONS) as Action[]).flatMap((action) => [...keysOf(action)]));
  const single = labels.every((label) => label.length === 1 && !taken.has(label.toLowerCase()));
  if (single && new Set(labels.map((label) => label.toLowerCase())).size === labels.length)
    return labels.map((label) => label.toLowerCase());
  const digits = [..."1234567890"];
  const all = [...digits, ...digits.map((digit) => `⇧${digit}`)];
  return labels.map((_, at) => all[at] ?? "");
}

/** The key that was pressed, as `labelKeys` and the table name it; empty for what is none of ours. */
export function pressed(event: KeyboardEvent): string {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return "";
  const target = event.target as HTMLElement;
  if (target.matches("input, textarea, select, [contenteditable]")) return "";
  // A button that has the focus keeps its own keys.
  if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary, [role=tab]")) return "";
  if (event.shiftKey && /^Digit\d$/.test(event.code)) return `⇧${event.code.slice(5)}`;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

export function actionOf(key: string): Action | null {
  if (!key || (key.length <= 2 && !choice.value.on)) return null;
  return (Object.keys(ACTIONS) as Action[]).find((action) => keysOf(action).includes(key)) ?? null;
}
