/** Boxes while they are drawn: what there is, which is chosen, and every step back. Pure but for the signals. */
import { computed, signal } from "@preact/signals";
import type { Box } from "./values";

export interface Point {
  x: number;
  y: number;
}
export type Edges = { left?: boolean; right?: boolean; top?: boolean; bottom?: boolean };
interface Draft {
  boxes: Box[];
  at: number; // the chosen box; -1: none
}
const NONE: Draft = { boxes: [], at: -1 };
const DEEP = 100;

const past = signal<Draft[]>([]);
const future = signal<Draft[]>([]);
export const draft = signal<Draft>(NONE);
export const brush = signal(""); // the label of the next box
export const extremes = signal<Point[] | null>(null); // the clicks so far, while a box is made by its four extremes
export const begun = computed(() => past.value.length > 0);
export const chosen = computed(() => draft.value.boxes[draft.value.at] ?? null);

export function begin(boxes: Box[]): void {
  past.value = [];
  future.value = [];
  extremes.value = null;
  draft.value = { boxes, at: -1 };
}

export function set(next: Draft): void {
  past.value = [...past.value, draft.value].slice(-DEEP);
  future.value = [];
  draft.value = next;
}

export function back(): boolean {
  const before = past.value.at(-1);
  if (!before) return false;
  future.value = [...future.value, draft.value];
  past.value = past.value.slice(0, -1);
  draft.value = before;
  return true;
}

export function forth(): void {
  const after = future.value.at(-1);
  if (!after) return;
  past.value = [...past.value, draft.value];
  future.value = future.value.slice(0, -1);
  draft.value = after;
}

export function choose(at: number): void {
  draft.value = { ...draft.value, at };
  if (chosen.value) brush.value = chosen.value.label;
}

export function next(step = 1): void {
  const { boxes, at } = draft.value;
  if (boxes.length) choose(at < 0 ? (step > 0 ? 0 : boxes.length - 1) : (at + step + boxes.length) % boxes.length);
}

export function add(box: Box): void {
  const { boxes } = draft.value;
  set({ boxes: [...boxes, box], at: boxes.length });
}

export function replace(box: Box, at = draft.value.at): void {
  set({ ...draft.value, boxes: draft.value.boxes.map((one, place) => (place === at ? box : one)) });
}

export function remove(): void {
  const { boxes, at } = draft.value;
  if (at < 0) return;
  const left = boxes.filter((_, place) => place !== at);
  set({ boxes: left, at: Math.min(at, left.length - 1) });
}

/** The label of the chosen box, and of those that are drawn from now on. */
export function paint(label: string): void {
  brush.value = label;
  if (chosen.value && chosen.value.label !== label) replace({ ...chosen.value, label });
}

/** The box around some points, within the picture. */
export function around(points: Point[], label: string): Box {
  const within = (values: number[]) => values.map((value) => Math.max(0, Math.min(1, value)));
  const [xs, ys] = [within(points.map((one) => one.x)), within(points.map((one) => one.y))];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { label, x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
}

export function moved(box: Box, dx: number, dy: number): Box {
  return { ...box, x: Math.max(0, Math.min(1 - box.width, box.x + dx)), y: Math.max(0, Math.min(1 - box.height, box.y + dy)) };
}

/** The box with some of its edges moved; an edge that passes the one over against it turns the box over. */
export function resized(box: Box, edges: Edges, dx: number, dy: number): Box {
  const [left, top, right, bottom] = [box.x, box.y, box.x + box.width, box.y + box.height];
  const corners = [
    { x: left + (edges.left ? dx : 0), y: top + (edges.top ? dy : 0) },
    { x: right + (edges.right ? dx : 0), y: bottom + (edges.bottom ? dy : 0) },
  ];
  return around(corners, box.label);
}

/** The smallest box under a point; -1 if there is none. */
export function under(boxes: readonly Box[], { x, y }: Point): number {
  let best = -1;
  boxes.forEach((box, at) => {
    const inside = x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height;
    const area = (one: Box) => one.width * one.height;
    if (inside && (best < 0 || area(box) < area(boxes[best]!))) best = at;
  });
  return best;
}
