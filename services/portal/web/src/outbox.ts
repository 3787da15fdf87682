/**
 * What was decided and is not yet with the server. It is in IndexedDB, so that neither a reload nor a closed tab loses
 * it, and is sent in order for each task, a few tasks at a time, until the server has taken or refused it. Each entry
 * has an Idempotency-Key and the epoch of its lease: however often it is sent, it counts once.
 */
import { signal } from "@preact/signals";
import { call, randomKey, Refused } from "./api";
import { me, token } from "./session";
import type { Suggestion, Value } from "./values";

export interface Entry {
  n?: number; // the order, given by the store
  key: string;
  project: string;
  subject: string;
  task: string;
  kind: "answer" | "skip" | "undo" | "unskip";
  epoch: number; // 0: that of the lease which the undo before it will bring
  value?: Value;
  reason?: string;
  schema?: number;
  seconds?: number;
  revises?: string; // the answer that this one takes the place of; both stay on record
  annotation?: string; // of an undo; empty: that of the answer before it
}

export interface Outcome {
  entry: Entry;
  refused?: Refused;
  annotation?: string;
  suggestion?: Suggestion | null;
  epoch?: number; // of the lease that an undo has brought back
}

const AT_ONCE = 4;
const PAUSES = [500, 1000, 2000, 4000, 8000, 15000];

export const waiting = signal(0);
export const away = signal<string | null>(null); // why nothing can be sent now
const listeners = new Set<(outcome: Outcome) => void>();
const memory: Entry[] = []; // the store's content, in order; what may be sent
const busy = new Set<string>(); // tasks with an entry on its way
let database: IDBDatabase | null = null;
let failures = 0;
let timer = 0;
let counter = 0;

export function onOutcome(listener: (outcome: Outcome) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Read what an earlier page has left, and send it. */
export async function open(): Promise<void> {
  database = await new Promise<IDBDatabase | null>((done) => {
    const request = indexedDB.open("halfsure", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("outbox", { keyPath: "n" });
    request.onsuccess = () => done(request.result);
    request.onerror = () => done(null); // a private window may have none: then it is kept in memory alone
  });
  await reread();
  addEventListener("online", () => kick(true));
  document.addEventListener("visibilitychange", () => !document.hidden && kick(true));
}

async function reread(): Promise<void> {
  if (!database) return;
  const rows = await new Promise<Entry[]>((done) => {
    const request = database!.transaction("outbox").objectStore("outbox").getAll();
    request.onsuccess = () => done(request.result as Entry[]);
    request.onerror = () => done([]);
  });
  const known = new Set(memory.map((entry) => entry.key));
  memory.push(...rows.filter((row) => !known.has(row.key)));
  memory.sort((a, b) => a.n! - b.n!);
  count();
}

function count(): void {
  waiting.value = memory.length;
}

function store(write: (rows: IDBObjectStore) => void): void {
  if (database) write(database.transaction("outbox", "readwrite", { durability: "strict" }).objectStore("outbox"));
}

/** Keep it and send it. Entries are numbered by time, so that two tabs share one order. */
export function add(entry: Omit<Entry, "key" | "n">): Entry {
  counter = Math.max(counter + 1, Date.now() * 1000);
  const kept: Entry = { ...entry, key: randomKey(), n: counter };
  memory.push(kept);
  store((rows) => rows.put(kept));
  count();
  kick();
  return kept;
}

/** Take back what is not on its way yet. */
export function withdraw(entry: Entry): boolean {
  const at = memory.indexOf(entry);
  if (at < 0 || busy.has(entry.task)) return false;
  forget(entry);
  return true;
}

export function pending(task: string): boolean {
  return memory.some((entry) => entry.task === task);
}

export function kick(now = false): void {
  if (now) failures = 0;
  if (now || failures === 0) {
    clearTimeout(timer);
    void send();
  }
}

async function send(): Promise<void> {
  if (!token.value) return;
  const seen = new Set<string>();
  for (const entry of [...memory]) {
    if (busy.size >= AT_ONCE) return;
    // What somebody else has left in this browser waits for them.
    if (entry.subject !== me.value?.subject || seen.has(entry.task) || busy.has(entry.task)) continue;
    seen.add(entry.task); // only the first of a task may go
    busy.add(entry.task);
    void deliver(entry);
  }
}

async function deliver(entry: Entry): Promise<void> {
  try {
    const outcome = await attempt(entry);
    follow(outcome);
    forget(entry);
    failures = 0;
    away.value = null;
    for (const listener of listeners) listener(outcome);
  } catch (error) {
    const refused = error instanceof Refused ? error : new Refused(0, "failed", String(error));
    if (refused.away || refused.status === 401) {
      away.value = refused.status === 401 ? "The token is not known here any more; sign in again." : refused.message;
      const pause = PAUSES[Math.min(failures++, PAUSES.length - 1)]!;
      clearTimeout(timer);
      timer = window.setTimeout(send, pause);
      busy.delete(entry.task);
      return;
    }
    forget(entry);
    for (const listener of listeners) listener({ entry, refused });
  }
  busy.delete(entry.task);
  void send();
}

async function attempt(entry: Entry): Promise<Outcome> {
  const query = { project: entry.project };
  const headers = { "idempotency-key": entry.key };
  const task = `/api/label-queue/v1/tasks/${entry.task}`;
  if (entry.kind === "answer") {
    const body = { epoch: entry.epoch, value: entry.value, schema_version: entry.schema, seconds: entry.seconds, revises: entry.revises };
    const answer = await call(`${task}/annotations`, { method: "POST", body, query, headers });
    const said = (await answer.json()) as { id: string; suggestion?: Suggestion | null };
    return { entry, annotation: said.id, suggestion: said.suggestion };
  }
  if (entry.kind === "skip") {
    const body = { epoch: entry.epoch, reason: entry.reason, requeue: false };
    await call(`${task}:skip`, { method: "POST", body, query, headers });
    return { entry };
  }
  if (entry.kind === "unskip") {
    const answer = await call(`${task}:unskip`, { method: "POST", body: { epoch: entry.epoch }, query, headers });
    return { entry, epoch: ((await answer.json()) as { lease: { epoch: number } }).lease.epoch };
  }
  if (!entry.annotation) throw new Refused(404, "not-found", "The answer was never taken.");
  const answer = await call(`/api/label-queue/v1/annotations/${entry.annotation}`, { method: "DELETE", query });
  const said = (await answer.json()) as { task: { lease: { epoch: number } } | null };
  return { entry, epoch: said.task?.lease.epoch };
}

/** Later entries of the same task learn what only the server could say, up to the next that is taken back. */
function follow(outcome: Outcome): void {
  const epoch = outcome.epoch ?? outcome.entry.epoch;
  for (const later of memory) {
    if (later === outcome.entry || later.task !== outcome.entry.task) continue;
    if (later.kind === "undo") later.annotation ||= outcome.annotation;
    later.epoch ||= epoch;
    store((rows) => rows.put(later));
    if (later.kind === "undo" || later.kind === "unskip") return;
  }
}

function forget(entry: Entry): void {
  const at = memory.indexOf(entry);
  if (at >= 0) memory.splice(at, 1);
  store((rows) => rows.delete(entry.n!));
  count();
}
