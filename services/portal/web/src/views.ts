/** What a sample looks like: fetched with the token and decoded before it is needed. */
import { call } from "./api";

export type View =
  | { kind: "image"; bitmap: ImageBitmap; words: string }
  | { kind: "row"; row: Record<string, unknown>; words: string }
  | { kind: "series"; points: number[]; words: string }
  | { kind: "text"; text: string; words: string }
  | { kind: "none"; words: string };

const kept = new Map<string, Promise<View>>();
const KEPT = 96;

/** The view of a task's sample. Fails never: what cannot be shown says why. */
export function viewOf(task: string, mediaType: string | null): Promise<View> {
  let view = kept.get(task);
  if (!view) {
    view = load(`/api/label-queue/v1/tasks/${task}/content`, mediaType).catch((error: Error) => {
      kept.delete(task); // it may be there next time
      return { kind: "none", words: error.message } as View;
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

export async function decode(blob: Blob, mediaType: string): Promise<View> {
  if (mediaType.startsWith("image/")) {
    const bitmap = await createImageBitmap(blob);
    return { kind: "image", bitmap, words: `Picture, ${bitmap.width} by ${bitmap.height} pixels` };
  }
  const text = await blob.text();
  if (mediaType.includes("json")) {
    const value = JSON.parse(text) as unknown;
    if (Array.isArray(value) && value.every((point) => typeof point === "number"))
      return { kind: "series", points: value as number[], words: `Series of ${value.length} values` };
    if (value && typeof value === "object")
      return { kind: "row", row: value as Record<string, unknown>, words: `Row of ${Object.keys(value).length} values` };
  }
  if (mediaType.startsWith("text/") || mediaType.includes("json")) return { kind: "text", text, words: "Text" };
  return { kind: "none", words: `A sample of type ${mediaType} cannot be shown here.` };
}
