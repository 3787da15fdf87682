/**
 * Answers, without their looks: given, skipped, taken back and thought over. Each moves on at once, and the outbox sends
 * it. What the server says later (lost, refused, a suggestion) is shown beside what was answered and never moves what is
 * on the screen.
 */
import { batch, signal } from "@preact/signals";
import { news, phase, prepare, queue, remember, seconds, shownNow, start as takeAhead, task, type Task, topUp } from "./ahead";
import { call, Refused } from "./api";
import * as outbox from "./outbox";
import { current, me, project } from "./session";
import { count, uncount } from "./today";
import { classesOf, same, saidBy, type Suggestion, type Value, words } from "./values";

export type Fate = "sending" | "saved" | "late" | "refused";
export interface Done {
  task: Task;
  value: Value | null; // null: skipped
  entry: outbox.Entry | null;
  annotation: string | null;
  fate: Fate;
  words: string;
  seconds?: number;
}

const DEEP = 50;
const UNREADABLE = "cannot be shown";

export const done = signal<Done[]>([]);
export const disputed = signal<{ item: Done; suggestion: Suggestion } | null>(null);
let began = false;

/** Begin, or begin anew for another project. */
export async function start(): Promise<void> {
  if (!began) outbox.onOutcome(settle);
  began = true;
  batch(() => {
    done.value = [];
    disputed.value = null;
  });
  await takeAhead((one, why) => {
    skip(UNREADABLE, one);
    news.value = `A sample that cannot be shown is skipped and told of: ${why}`;
  });
}

function move(one: Task, item: Done): void {
  batch(() => {
    queue.value = queue.value.filter((other) => other.id !== one.id);
    done.value = [...done.value, item].slice(-DEEP);
    if (!queue.value.length) phase.value = "loading";
  });
  shownNow();
  remember();
  void topUp();
}

/** Answer the first task, or another of the queue (grid); it moves on before anything is sent. */
export function answer(value: Value, one: Task | null = task.value): void {
  if (!one || !classesOf(value).every((label) => one.labels.includes(label))) return;
  const took = seconds();
  const entry = outbox.add({ ...of(one), kind: "answer", value, schema: one.schema_version, seconds: took });
  count();
  news.value = `${words(value)}. ${queue.value.length > 1 ? "Next sample." : ""}`;
  move(one, { task: one, value, entry, annotation: null, fate: "sending", words: "being saved", seconds: took });
}

export function skip(why: string, one: Task | null = task.value): void {
  if (!one) return;
  const entry = outbox.add({ ...of(one), kind: "skip", reason: why });
  news.value = `Skipped: ${why}.`;
  move(one, { task: one, value: null, entry, annotation: null, fate: "sending", words: why });
}

function of(one: Task): Pick<outbox.Entry, "project" | "subject" | "task" | "epoch"> {
  return { project: project.value, subject: me.value!.subject, task: one.id, epoch: one.lease.epoch };
}

/** Take an answer or a skip back: its sample is on the screen again at once, with the answer to begin from. */
export function undo(item: Done | undefined = done.value.at(-1)): void {
  if (!item) {
    news.value = "There is nothing to take back.";
    return;
  }
  if (item.fate === "late") {
    news.value = "That came too late to count; there is nothing to take back.";
    done.value = done.value.filter((other) => other !== item);
    return;
  }
  const unsent = item.entry !== null && outbox.withdraw(item.entry);
  const back: Task = { ...item.task, lease: { ...item.task.lease }, draft: item.value ?? undefined };
  if (!unsent && item.fate !== "refused") {
    back.lease.epoch = 0; // the server will say, and the outbox fills it in
    outbox.add({ ...of(item.task), kind: item.value === null ? "unskip" : "undo", annotation: item.annotation ?? "" });
  }
  if (item.value !== null) uncount();
  batch(() => {
    done.value = done.value.filter((other) => other !== item);
    if (disputed.value?.item === item) disputed.value = null;
    queue.value = [back, ...queue.value.filter((other) => other.id !== back.id)];
    phase.value = "ready";
  });
  news.value = `Taken back: ${item.value === null ? "a skip" : words(item.value)}.`;
  shownNow();
  void prepare(back);
  remember();
}

/** The model disagrees with what was answered: keep the answer, or take the model's; both stay on record. */
export function decide(change: boolean): void {
  const open = disputed.value;
  if (!open) return;
  disputed.value = null;
  const item = open.item;
  if (!change) {
    news.value = `Kept: ${words(item.value)}.`;
    return;
  }
  const one = item.task;
  const value = saidBy(open.suggestion);
  const entry = outbox.add({ ...of(one), kind: "answer", value, schema: one.schema_version, revises: item.annotation ?? undefined });
  const changed: Done = { ...item, value, entry, annotation: null, fate: "sending", words: "being changed" };
  done.value = done.value.map((other) => (other === item ? changed : other));
  news.value = `Changed to ${words(value)}.`;
}

/** What the server has said of an entry. */
function settle(outcome: outbox.Outcome): void {
  const { entry, refused } = outcome;
  if (entry.kind === "undo" || entry.kind === "unskip") return returned(outcome);
  const item = done.value.find((one) => one.entry?.key === entry.key);
  if (refused?.code === "schema-changed") return void relabel(entry, item);
  const change: Partial<Done> = refused
    ? { fate: refused.code === "lease-lost" ? "late" : "refused", words: refused.message, entry: null }
    : { fate: "saved", words: item?.value === null ? `skipped: ${item.words}` : "saved", annotation: outcome.annotation, entry: null };
  if (refused) news.value = refused.message;
  if (!item) return;
  const settled: Done = { ...item, ...change, task: { ...item.task, lease: { ...item.task.lease, epoch: entry.epoch } } };
  done.value = done.value.map((one) => (one === item ? settled : one));
  const { suggestion } = outcome;
  const revealed = current.value?.suggestions === "reveal_after" && item.words !== "being changed";
  if (suggestion && revealed && item.value !== null && !same(saidBy(suggestion), item.value)) {
    disputed.value = { item: settled, suggestion };
    news.value = `You said ${words(item.value)}, the model ${words(saidBy(suggestion))}. Keep or change?`;
  }
}

/** What was taken back is leased again, under another epoch; or it is not, and goes. */
function returned({ entry, refused, epoch }: outbox.Outcome): void {
  queue.value = queue.value
    .map((one) => (one.id === entry.task && epoch ? { ...one, lease: { ...one.lease, epoch } } : one))
    .filter((one) => one.id !== entry.task || one.lease.epoch || outbox.pending(one.id));
  remember();
  if (refused) news.value = `It could not be taken back: ${refused.message}`;
}

/** The labels are others by now: what was answered is sent again if it is still among them, else asked again. */
async function relabel(entry: outbox.Entry, item: Done | undefined): Promise<void> {
  try {
    const answer = await call(`/api/label-queue/v1/schemas/${entry.project}`);
    const schema = (await answer.json()) as { labels: string[]; version: number };
    queue.value = queue.value.map((one) => ({ ...one, labels: schema.labels, schema_version: schema.version }));
    const { key: _, n: __, ...rest } = entry;
    if (classesOf(entry.value!).every((label) => schema.labels.includes(label))) {
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
    news.value = `The labels have changed, and ${words(entry.value!)} is not possible any more; please answer again.`;
  } catch (error) {
    news.value = error instanceof Refused ? error.message : String(error);
  }
}
