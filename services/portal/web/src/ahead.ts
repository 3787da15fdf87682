/**
 * Samples taken ahead: leased, fetched and decoded before they are asked about, so that an answer needs no network; kept
 * while somebody is here, and let go when nobody is.
 */
import { batch, computed, signal } from "@preact/signals";
import { address, call, headers, Refused } from "./api";
import * as outbox from "./outbox";
import { project } from "./session";
import type { Suggestion, Value } from "./values";
import { type View, viewOf } from "./views";

export interface Task {
  id: string;
  sample_id: string;
  labels: string[];
  schema_version: number;
  content: { media_type: string | null };
  lease: { epoch: number; until: string };
  suggestion?: Suggestion | null;
  draft?: Value; // where one begins: the answer that was taken back
}
export type Phase = "loading" | "ready" | "empty" | "leased" | "away" | "forbidden" | "failed";

const MOST = 24; // the queue's max_leases
const LOW = 12;
const BEAT = 30_000;
const IDLE = 300_000; // ms without a key or a click after which leases are let go
const RETRY = 3000;

export const queue = signal<Task[]>([]);
export const phase = signal<Phase>("loading");
export const reason = signal("");
export const news = signal(""); // for the live region
export const task = computed(() => queue.value[0] ?? null);
export const views = signal<ReadonlyMap<string, View>>(new Map());

let shownAt = performance.now();
let claiming = false;
let lastMove = Date.now();
let again = 0;
let pause = 2000;
let began = false;
let drop: (one: Task, why: string) => void = () => undefined;

const leaseStore = () => `halfsure.leases.${project.value}`;

/** Begin, or begin anew for another project; `unreadable` is told of samples that can never be shown. */
export async function start(unreadable: (one: Task, why: string) => void): Promise<void> {
  drop = unreadable;
  if (!began) {
    began = true;
    setInterval(beat, BEAT);
    for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => (lastMove = Date.now()), { passive: true });
    addEventListener("pagehide", leave);
    addEventListener("pageshow", (event) => event.persisted && void start(drop));
  }
  clearTimeout(again);
  batch(() => {
    queue.value = [];
    phase.value = "loading";
  });
  await resume();
  await topUp();
}

/** A reloaded page goes on with the leases that it had. */
async function resume(): Promise<void> {
  let kept: Task[];
  try {
    kept = JSON.parse(sessionStorage.getItem(leaseStore()) ?? "[]") as Task[];
  } catch {
    kept = [];
  }
  const alive = kept.filter((one) => Date.parse(one.lease.until) > Date.now() && !outbox.pending(one.id));
  const held = await Promise.all(alive.map(async (one) => ((await prolong(one)) ? one : null)));
  arrive(held.filter((one) => one !== null));
}

export function remember(): void {
  sessionStorage.setItem(leaseStore(), JSON.stringify(queue.value));
}

function arrive(tasks: Task[]): void {
  const known = new Set(queue.value.map((one) => one.id));
  const fresh = tasks.filter((one) => !known.has(one.id));
  if (!fresh.length) return;
  if (!queue.value.length) shownNow();
  queue.value = [...queue.value, ...fresh];
  phase.value = "ready";
  remember();
  for (const one of fresh) void prepare(one);
}

export async function prepare(one: Task): Promise<void> {
  const view = await viewOf(one.id, one.content.media_type);
  views.value = new Map([...views.value, [one.id, view] as const].slice(-96));
  if (task.value?.id === one.id) shownNow();
  const waits = queue.value.find((other) => other.id === one.id);
  if (view.kind !== "none" || !waits) return;
  if (view.broken) drop(waits, view.words);
  else setTimeout(() => queue.value.some((other) => other.id === one.id) && void prepare(one), RETRY);
}

/** The first task is on the screen from now on. */
export function shownNow(): void {
  shownAt = performance.now();
}

/** How long the first task has been on the screen. */
export function seconds(): number {
  return Math.min(86_400, (performance.now() - shownAt) / 1000);
}

export async function topUp(): Promise<void> {
  if (claiming || queue.value.length >= LOW || !project.value) return;
  claiming = true;
  clearTimeout(again);
  try {
    const n = Math.min(LOW, MOST - queue.value.length);
    const answer = await call("/api/label-queue/v1/tasks:claim", { method: "POST", body: { n } });
    if (answer.status === 204) nothing(answer.headers.get("x-queue") ?? "");
    else {
      pause = 2000;
      arrive(((await answer.json()) as { tasks: Task[] }).tasks);
    }
  } catch (error) {
    if (error instanceof Refused) unable(error);
    else throw error;
  } finally {
    claiming = false;
  }
}

function later(): void {
  clearTimeout(again);
  again = window.setTimeout(topUp, pause);
  pause = Math.min(pause * 1.5, 15_000);
}

function nothing(header: string): void {
  const leased = Number(/leased=(\d+)/.exec(header)?.[1] ?? 0);
  if (!queue.value.length) {
    phase.value = leased ? "leased" : "empty";
    reason.value = leased ? String(leased) : "";
  }
  later();
}

function unable(refused: Refused): void {
  if (queue.value.length) return later(); // there is enough to go on with
  if (refused.code === "too-many-leases") {
    phase.value = "leased";
    reason.value = "own";
  } else {
    phase.value = refused.away ? "away" : refused.status === 403 ? "forbidden" : "failed";
    reason.value = refused.message;
  }
  if (refused.away) later();
}

/** Tasks were queued: look at once, if there was nothing to do. */
export function stir(): void {
  if (queue.value.length < LOW && !claiming) {
    pause = 2000;
    clearTimeout(again);
    again = window.setTimeout(topUp, 100);
  }
}

async function prolong(one: Task): Promise<boolean> {
  try {
    const body = { epoch: one.lease.epoch };
    const answer = await call(`/api/label-queue/v1/tasks/${one.id}:heartbeat`, { method: "POST", body });
    one.lease = ((await answer.json()) as { lease: Task["lease"] }).lease;
    return true;
  } catch (error) {
    return !(error instanceof Refused && (error.status === 409 || error.status === 404));
  }
}

/** Keep the leases while somebody is here; let them go when nobody is, so that others get the tasks. */
async function beat(): Promise<void> {
  if (Date.now() - lastMove > IDLE) return;
  const due = queue.value.filter((one) => one.lease.epoch && Date.parse(one.lease.until) - Date.now() < 3 * BEAT);
  for (const one of due) if (!(await prolong(one))) lose(one);
  remember();
}

function lose(one: Task): void {
  const first = task.value?.id === one.id;
  queue.value = queue.value.filter((other) => other.id !== one.id);
  if (first) {
    news.value = "This sample's lease ran out and somebody else has it; here is the next.";
    shownNow();
  }
  void topUp();
}

/** The page goes: what was decided is sent, and what was not is free for others at once. */
function leave(): void {
  outbox.kick(true);
  for (const one of queue.value) {
    if (!one.lease.epoch || outbox.pending(one.id)) continue;
    const body = JSON.stringify({ epoch: one.lease.epoch });
    const how = { method: "POST", body, keepalive: true, headers: headers({ "content-type": "application/json" }) };
    void fetch(address(`/api/label-queue/v1/tasks/${one.id}:release`), how).catch(() => undefined);
  }
}
