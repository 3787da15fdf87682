/** What a sample looks like: fetched with the token and decoded before it is needed. */
import { call, Refused } from "./api";

export interface Line {
  name: string;
  values: number[];
}
export type View =
  | { kind: "image"; bitmap: ImageBitmap; words: string }
  | { kind: "row"; row: Record<string, unknown>; words: string }
  | { kind: "series"; lines: Line[]; last: Record<string, unknown>; words: string }
  | { kind: "text"; text: string; words: string }
  | { kind: "none"; words: string; broken: boolean }; // broken: it will never be shown; else it may be there next time

const kept = new Map<string, Promise<View>>();
const KEPT = 96;

/** The view of a task's sample. Fails never: what cannot be shown says why. */
export function viewOf(task: string, mediaType: string | null): Promise<View> {
  let view = kept.get(task);
  if (!view) {
    view = load(`/api/label-queue/v1/tasks/${task}/content`, mediaType).catch((error: Error) => {
      kept.delete(task);
      const broken = !(error instanceof Refused) || [404, 410].includes(error.status);
      return { kind: "none", words: error instanceof Refused ? error.message : "It cannot be read here.", broken } as View;
    });
    kept.set(task, view);
    for (const old of [...kept.keys()].slice(0, Math.max(0, kept.size - KEPT))) kept.delete(old);
  }
  return view;
}

export async function load(path: string, mediaType: string | null): Promise<View> {
  const answer = await call(path);
  return decode(await answer.blob(), mediaType ?? answer.headers.get("content-type") ?? "");
}

/** Throws what the browser throws at bytes that are not what they are said to be. */
export async function decode(blob: Blob, mediaType: string): Promise<View> {
  if (mediaType.startsWith("image/")) {
    const bitmap = await createImageBitmap(blob); // upright: what a camera says of its own rotation is heeded
    return { kind: "image", bitmap, words: `Picture, ${bitmap.width} by ${bitmap.height} pixels` };
  }
  const text = await blob.text();
  if (mediaType.includes("json")) {
    const value = JSON.parse(text) as unknown;
    if (Array.isArray(value) && value.length) return series(value);
    if (value && typeof value === "object")
      return { kind: "row", row: value as Record<string, unknown>, words: `Row of ${Object.keys(value).length} values` };
  }
  if (mediaType.startsWith("text/") || mediaType.includes("json")) return { kind: "text", text, words: "Text" };
  return { kind: "none", words: `A sample of type ${mediaType} cannot be shown here.`, broken: false };
}

/** Points, oldest first: numbers, or rows of which each column of numbers is a line. */
function series(points: unknown[]): View {
  const rows = points.map((point) => (typeof point === "number" ? { value: point } : point) as Record<string, unknown>);
  const last = rows.at(-1)!;
  const lines = Object.keys(last)
    .filter((name) => rows.every((row) => typeof row[name] === "number"))
    .map((name) => ({ name, values: rows.map((row) => row[name] as number) }));
  return { kind: "series", lines, last, words: `Series of ${points.length} points` };
}
