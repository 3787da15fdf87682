/** What happens in the loop, live: the portal's event stream, read by fetch because an EventSource has no headers. */
import { signal } from "@preact/signals";
import { address, headers } from "./api";
import { project, token } from "./session";

export interface Happening {
  id: string;
  type: string;
  time: string;
  project: string;
  data: Record<string, unknown>;
}
export const live = signal(false);
const listeners = new Set<(one: Happening | null) => void>();
let running: AbortController | null = null;
let last = "";

/** Hear events, and null where some were missed. The stream is open while anybody listens. */
export function listen(listener: (one: Happening | null) => void): () => void {
  listeners.add(listener);
  if (!running) void run((running = new AbortController()));
  return () => {
    listeners.delete(listener);
    if (!listeners.size) {
      running?.abort();
      running = null;
      live.value = false;
    }
  };
}

export function restart(): void {
  if (!running) return;
  running.abort();
  last = "";
  void run((running = new AbortController()));
}

async function run(control: AbortController): Promise<void> {
  let pause = 1000;
  while (!control.signal.aborted) {
    try {
      const path = address("/v1/events", { project: project.value || undefined });
      const more = last ? { "last-event-id": last } : undefined;
      const answer = await fetch(path, { headers: headers(more), signal: control.signal, credentials: "omit" });
      if (answer.status === 401 && token.value) return;
      if (!answer.ok || !answer.body) throw new Error(String(answer.status));
      live.value = true;
      pause = 1000;
      await read(answer.body.getReader());
    } catch {
      if (control.signal.aborted) return;
    }
    live.value = false;
    await new Promise((wake) => setTimeout(wake, pause));
    pause = Math.min(pause * 2, 15_000);
  }
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const frames = text.split("\n\n");
    text = frames.pop()!;
    for (const frame of frames) tell(frame);
  }
}

function tell(frame: string): void {
  const fields = new Map(
    frame.split("\n").flatMap((line) => {
      const at = line.indexOf(": ");
      return at > 0 ? [[line.slice(0, at), line.slice(at + 2)] as const] : [];
    }),
  );
  last = fields.get("id") ?? last;
  const kind = fields.get("event");
  if (!kind || kind === "hello") return;
  const one = kind === "reset" ? null : (JSON.parse(fields.get("data")!) as Happening);
  for (const listener of listeners) listener(one);
}
