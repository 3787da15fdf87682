/**
 * Labelling, without its looks. Leases are taken ahead and their samples decoded, so that an answer needs no network:
 * it moves on at once, and the outbox sends it. What the server says later (lost, refused, a suggestion) is shown
 * beside what was answered and never moves what is on the screen.
 */
import { batch, computed, signal } from "@preact/signals";
import { address, call, headers, Refused } from "./api";
import * as outbox from "./outbox";
import { current, me, project } from "./session";
import { type View, viewOf } from "./views";

export interface Task {
  id: string;
  sample_id: string;
  labels: string[];
  schema_version: number;
  content: { media_type: string | null };
  lease: { epoch: number; until: string };
  suggestion?: outbox.Suggestion | null;
}
export type Fate = "sending" | "saved" | "late" | "refused";
export interface Done {
  task: Task;
  value: string | null; // null: skipped
  entry: outbox.Entry | null;
  annotation: string | null;
  fate: Fate;
  words: string;
}
export type Phase = "loading" | "ready" | "empty" | "leased" | "away" | "forbidden" | "failed";

const MOST = 24; // the queue's max_leases
const LOW = 12;
const DEEP = 50;
const SKIP_GRACE = 8000; // ms in which a skip can be taken back
const BEAT = 30_000;
const IDLE = 300_000; // ms without a key or a click after which leases are let go

export const queue = signal<Task[]>([]);
export const done = signal<Done[]>([]);
export const phase = signal<Phase>("loading");
export const reason = signal("");
export const disputed = signal<{ item: Done; suggestion: outbox.Suggestion } | null>(null);
export const news = signal(""); // for the live region
export const answered = signal(0); // in this session
export const task = computed(() => queue.value[0] ?? null);
export const views = signal<ReadonlyMap<string, View>>(new Map());

let shownAt = performance.now();
let claiming = false;
let lastMove = Date.now();
let again = 0;
let pause = 2000;
let began = false;

const leaseStore = () => `halfsure.leases.${project.value}`;

/** Begin, or begin anew for another project. */
export async function start(): Promise<void> {
  if (!began) {
    began = true;
    outbox.onOutcome(settle);
    setInterval(beat, BEAT);
    for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => (lastMove = Date.now()), { passive: true });
    addEventListener("pagehide", leave);
    addEventListener("pageshow", (event) => event.persisted && void start());
  }
  clearTimeout(again);
  batch(() => {
    queue.value = [];
    done.value = [];
    disputed.value = null;
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

function remember(): void {
  sessionStorage.setItem(leaseStore(), JSON.stringify(queue.value));
}

function arrive(tasks: Task[]): void {
  const known = new Set(queue.value.map((one) => one.id));
  const fresh = tasks.filter((one) => !known.has(one.id));
  if (!fresh.length) return;
  if (!queue.value.length) shownAt = performance.now();
  queue.value = [...queue.value, ...fresh];
  phase.value = "ready";
  remember();
  for (const one of fresh) void prepare(one);
}

async function prepare(one: Task): Promise<void> {
  const view = await viewOf(one.id, one.content.media_type);
  views.value = new Map([...views.value, [one.id, view] as const].slice(-96));
  if (task.value?.id === one.id) shownAt = performance.now();
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
    shownAt = performance.now();
  }
  void topUp();
}

/** The page goes: what was decided is sent, and what was not is free for others at once. */
function leave(): void {
  outbox.hurry();
  for (const one of queue.value) {
    if (!one.lease.epoch || outbox.pending(one.id)) continue;
    const body = JSON.stringify({ epoch: one.lease.epoch });
    const how = { method: "POST", body, keepalive: true, headers: headers({ "content-type": "application/json" }) };
    void fetch(address(`/api/label-queue/v1/tasks/${one.id}:release`), how).catch(() => undefined);
  }
}

function move(one: Task, item: Done): void {
  batch(() => {
    queue.value = queue.value.filter((other) => other.id !== one.id);
    done.value = [...done.value, item].slice(-DEEP);
    if (!queue.value.length) phase.value = "loading";
  });
  shownAt = performance.now();
  remember();
  void topUp();
}

/** Answer the first task, or another of the queue (grid); it moves on before anything is sent. */
export function answer(value: string, one: Task | null = task.value): void {
  if (!one || !one.labels.includes(value)) return;
  const seconds = Math.min(86_400, (performance.now() - shownAt) / 1000);
  const entry = outbox.add({ ...of(one), kind: "answer", value, schema: one.schema_version, seconds });
  answered.value += 1;
  news.value = `${value}. ${queue.value.length > 1 ? "Next sample." : ""}`;
  move(one, { task: one, value, entry, annotation: null, fate: "sending", words: "being saved" });
}

export function skip(why: string, one: Task | null = task.value): void {
  if (!one) return;
  const entry = outbox.add({ ...of(one), kind: "skip", reason: why, after: Date.now() + SKIP_GRACE });
  news.value = `Skipped: ${why}.`;
  move(one, { task: one, value: null, entry, annotation: null, fate: "sending", words: why });
}

function of(one: Task): Pick<outbox.Entry, "project" | "subject" | "task" | "epoch"> {
  return { project: project.value, subject: me.value!.subject, task: one.id, epoch: one.lease.epoch };
}

/** Take the last answer back: its sample is on the screen again at once. */
export function undo(item: Done | undefined = done.value.at(-1)): void {
  if (!item) {
    news.value = "There is nothing to take back.";
    return;
  }
  if (item.value === null && item.fate === "saved") {
    news.value = "A skip that was sent stays; what was answered before it can be taken back.";
    done.value = done.value.filter((other) => other !== item);
    return;
  }
  if (item.fate === "late") {
    news.value = "That answer came too late to count; there is nothing to take back.";
    done.value = done.value.filter((other) => other !== item);
    return;
  }
  const unsent = item.entry !== null && outbox.withdraw(item.entry);
  const back = { ...item.task, suggestion: item.task.suggestion, lease: { ...item.task.lease } };
  if (!unsent && item.fate !== "refused") {
    back.lease.epoch = 0; // the server will say, and the outbox fills it in
    outbox.add({ ...of(item.task), kind: "undo", annotation: item.annotation ?? "" });
  }
  batch(() => {
    done.value = done.value.filter((other) => other !== item);
    if (disputed.value?.item === item) disputed.value = null;
    queue.value = [back, ...queue.value.filter((other) => other.id !== back.id)];
    phase.value = "ready";
  });
  news.value = `Taken back: ${item.value ?? "a skip"}.`;
  shownAt = performance.now();
  void prepare(back);
  remember();
}

/** The model disagrees with what was answered: keep the answer, or take the model's; both stay on record. */
export function decide(change: boolean): void {
  const open = disputed.value;
  if (!open) return;
  disputed.value = null;
  if (!change) {
    news.value = `Kept: ${open.item.value}.`;
    return;
  }
  const one = open.item.task;
  const value = open.suggestion.label;
  const revises = open.item.annotation ?? undefined;
  const entry = outbox.add({ ...of(one), kind: "answer", value, schema: one.schema_version, revises });
  const changed: Done = { ...open.item, value, entry, annotation: null, fate: "sending", words: "being changed" };
  done.value = done.value.map((other) => (other === open.item ? changed : other));
  news.value = `Changed to ${value}.`;
}

/** What the server has said of an entry. */
function settle(outcome: outbox.Outcome): void {
  const { entry, refused } = outcome;
  if (entry.kind === "undo") {
    queue.value = queue.value
      .map((one) => (one.id === entry.task && outcome.epoch ? { ...one, lease: { ...one.lease, epoch: outcome.epoch } } : one))
      .filter((one) => one.id !== entry.task || one.lease.epoch || outbox.pending(one.id));
    remember();
    if (refused) news.value = `It could not be taken back: ${refused.message}`;
    return;
  }
  const item = done.value.find((one) => one.entry?.key === entry.key);
  if (refused?.code === "schema-changed") return void relabel(entry, item);
  const change: Partial<Done> = refused
    ? { fate: refused.code === "lease-lost" ? "late" : "refused", words: refused.message, entry: null }
    : { fate: "saved", words: item?.value === null ? `skipped: ${item.words}` : "saved", annotation: outcome.annotation, entry: null };
  if (refused) news.value = refused.message;
  if (!item) return;
  const settled: Done = { ...item, ...change };
  done.value = done.value.map((one) => (one === item ? settled : one));
  const suggestion = outcome.suggestion;
  const revealed = current.value?.suggestions === "reveal_after" && item.words !== "being changed";
  if (suggestion && revealed && suggestion.label !== item.value) {
    disputed.value = { item: settled, suggestion };
    news.value = `You said ${item.value}, the model ${suggestion.label}. Keep or change?`;
  }
}

/** The labels are others by now: what was answered is sent again if it is still among them, else asked again. */
async function relabel(entry: outbox.Entry, item: Done | undefined): Promise<void> {
  try {
    const answer = await call(`/api/label-queue/v1/schemas/${entry.project}`);
    const schema = (await answer.json()) as { labels: string[]; version: number };
    queue.value = queue.value.map((one) => ({ ...one, labels: schema.labels, schema_version: schema.version }));
    const { key: _, n: __, ...rest } = entry;
    if (schema.labels.includes(entry.value ?? "")) {
      const sent = outbox.add({ ...rest, schema: schema.version });
      if (item) done.value = done.value.map((one) => (one === item ? { ...one, entry: sent } : one));
      return;
    }
    if (!item) return;
    const back = { ...item.task, labels: schema.labels, schema_version: schema.version };
    batch(() => {
      done.value = done.value.filter((one) => one !== item);
      queue.value = [back, ...queue.value];
      phase.value = "ready";
    });
    news.value = `The labels have changed, and ${entry.value} is none of them any more; please answer again.`;
  } catch (error) {
    news.value = error instanceof Refused ? error.message : String(error);
  }
}

// Undo after a reload, and the picture of an older answer, need the view again.
export function look(item: Done): void {
  void prepare(item.task);
}
