/** Answers to each kind of task, as `services/contracts/values.py` has them. Pure. */

export interface Box {
  label: string;
  x: number; // fractions of the upright picture, from its upper left corner
  y: number;
  width: number;
  height: number;
}
export type Value = string | string[] | { boxes: Box[] };
export type Asked = "classification" | "multi-label" | "detection";
export interface Suggestion {
  label: string;
  confidence: number;
  value?: Value; // the whole answer, where it is more than the label
}

const SAME = 0.5; // overlap from which two boxes are one

/** What a project's task asks for: `image-detection` asks for a detection. */
export function askedBy(task: string): Asked {
  return task.slice(task.indexOf("-") + 1) as Asked;
}

export function saidBy(suggestion: Suggestion): Value {
  return suggestion.value ?? suggestion.label;
}

export function boxesOf(value: Value | null | undefined): Box[] {
  return value && typeof value === "object" && "boxes" in value ? value.boxes : [];
}

/** The labels that a value names, each once. */
export function classesOf(value: Value): string[] {
  if (typeof value === "string") return [value];
  return [...new Set(Array.isArray(value) ? value : value.boxes.map((box) => box.label))];
}

/** The value for people to read. */
export function words(value: Value | null): string {
  if (value === null) return "skip";
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.join(", ") || "none";
  const counts = classesOf(value).map((label) => [label, value.boxes.filter((box) => box.label === label).length] as const);
  return counts.map(([label, n]) => (n > 1 ? `${n} × ${label}` : label)).join(", ") || "nothing";
}

/** Whether two answers say the same; boxes do when each has its partner. */
export function same(one: Value, other: Value): boolean {
  if (typeof one === "string" || typeof other === "string") return one === other;
  if (Array.isArray(one) || Array.isArray(other))
    return Array.isArray(one) && Array.isArray(other) && one.length === other.length && one.every((label) => other.includes(label));
  const left = [...other.boxes];
  return one.boxes.length === left.length && one.boxes.every((box) => {
    const at = left.findIndex((partner) => partner.label === box.label && overlap(box, partner) >= SAME);
    if (at >= 0) left.splice(at, 1);
    return at >= 0;
  });
}

/** Intersection over union. */
export function overlap(a: Box, b: Box): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const both = Math.max(0, width) * Math.max(0, height);
  return both / (a.width * a.height + b.width * b.height - both || 1);
}
