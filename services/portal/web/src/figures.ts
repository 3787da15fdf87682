/** What the services know of the loop, asked for together; what is not behind this portal is null. Pure but for asking. */
import { get, Refused } from "./api";
import { has, may, me } from "./session";

export interface Run {
  run_id: string;
  state: string;
  reason: string;
  requested_at: string;
  ended_at: string | null;
  model_version: string | null;
  promoted?: boolean;
  error?: string | null;
  gate?: Gate | null;
  snapshot: { id: string; counts: { train: number; evaluation: number; new: number } };
}
export interface Gate {
  promote: boolean;
  reasons: string[];
  candidate: number;
  champion: number | null;
  difference?: number;
  lower_bound?: number;
  n: number;
}
/** What a model is judged by depends on what it answers with: `metric` names the number that counts. */
export type Metrics = { metric?: string; per_class: Record<string, { n: number; recall: number | null }> } & Record<string, unknown>;
const MEANINGS: Record<string, string> = {
  accuracy: "right on the pinned set",
  jaccard: "overlap with the pinned set's labels",
  map50: "mAP at 0.5 on the pinned set",
};
export function mainMetric(metrics: Metrics): { value: number; meaning: string } {
  const name = metrics.metric ?? "accuracy";
  return { value: Number(metrics[name]), meaning: MEANINGS[name] ?? `${name} on the pinned set` };
}
export interface Model {
  version: string;
  state: "ACTIVE" | "PREVIOUS" | "ARCHIVED" | "REJECTED" | "CANDIDATE" | "SHADOW";
  created_at: string;
  lineage: { run: string | null; snapshot?: string; base?: string | null; by?: string };
  metrics: Metrics | null;
  gate: Gate | null;
  loads: Record<string, { outcome: string; provider: string; error: string | null }>;
}
export interface Trigger {
  rule: { n: number; n_min: number; min_per_class: number; max_age_seconds: number | null; cooldown_seconds: number };
  counters: { new: number; retracted: number; per_class: Record<string, number>; audit: { errors: number; total: number }; oldest_new: string | null };
  fires: boolean;
  reason: string | null;
  missing: Record<string, unknown>;
  cooldown_until: string | null;
  active_run: string | null;
  drift?: { psi: number; drift: boolean } | null;
}
export interface Pace {
  by_hour: number[];
  seconds: { n: number; p50: number | null; p90: number | null };
  skipped: Record<string, number>;
}
export interface Queue {
  queued: number;
  leased: number;
  accepted: number;
  skipped: number;
  disputed: number;
  imported: number;
  asked: number;
  by_class: Record<string, number>;
}
export interface Selection {
  seen: number;
  asked: number;
  states: Record<string, number>;
  by_trigger: Record<string, number>;
  score_histogram: number[];
  by_stream?: Record<string, { n: number; uncertainty: number }>;
  waiting_for: string | null;
}
export interface Share {
  n: number;
  share: number | null;
  interval: [number, number] | null;
}
export interface Annotator {
  annotator: string;
  answers: number;
  revised: number;
  median_seconds: number | null;
  gold: Share;
  agreement: Share;
  reliability: number | null;
  blind_gap: { shown: Share; blind: Share; gap: number | null; interval: [number, number] | null };
}
export interface Page<T> {
  items: T[];
  cursor: string | null;
}

/** The answer, null where the service is not here or not for this token; what else goes wrong is thrown. */
async function maybe<T>(path: string, query?: Record<string, string | number>): Promise<T | null> {
  if (!has(path.split("/")[2]!)) return null;
  try {
    return await get<T>(path, query);
  } catch (error) {
    if (error instanceof Refused && [403, 404, 503].includes(error.status)) return null;
    throw error;
  }
}

/** Whether a service answers, and what it could not handle (null: not for this token to know). */
async function health(name: string) {
  try {
    const [info, letters] = await Promise.all([
      get<{ version: string; ready: boolean }>(`/api/${name}/v1/info`),
      may("operator") ? get<Page<unknown>>(`/api/${name}/v1/deadletters`, { limit: 500 }) : null,
    ]);
    return { name, state: info.ready ? "ready" : "not ready", version: info.version, letters: letters && letters.items.length };
  } catch (error) {
    return { name, state: error instanceof Refused ? error.message : String(error), version: null, letters: null };
  }
}

export async function overview(project: string) {
  const [ingest, selection, queue, trigger, runs, models, waiting, pace, services] = await Promise.all([
    maybe<{ states: Record<string, number>; bytes: number }>("/api/ingest/v1/stats"),
    maybe<Selection>("/api/select-uncertain/v1/stats"),
    maybe<Queue>("/api/label-queue/v1/stats"),
    maybe<Trigger>(`/api/retrain-trigger/v1/triggers/${project}`),
    maybe<Page<Run>>("/api/retrain-trigger/v1/runs", { limit: 200 }),
    maybe<Page<Model>>("/api/retrain-trigger/v1/models", { limit: 200 }),
    maybe<Page<{ created_at: string }>>("/api/label-queue/v1/tasks", { state: "queued", limit: 500 }),
    maybe<Pace>("/api/label-queue/v1/pace"),
    Promise.all((me.value?.services ?? []).map(health)),
  ]);
  return { ingest, selection, queue, trigger, runs, models, waiting, pace, services };
}
export type Overview = Awaited<ReturnType<typeof overview>>;

const Z = 1.959964;

/** The 95 % score interval of a share (Wilson 1927). */
export function wilson(share: number, n: number): [number, number] {
  const zz = Z * Z;
  const centre = share + zz / (2 * n);
  const half = Z * Math.sqrt((share * (1 - share)) / n + zz / (4 * n * n));
  return [Math.max(0, (centre - half) / (1 + zz / n)), Math.min(1, (centre + half) / (1 + zz / n))];
}

/** What each judged model scored on the pinned set, by the labels that it learnt from. */
export function judged(runs: Run[]) {
  return runs
    .filter((run) => run.gate && run.state === "SUCCEEDED")
    .map((run) => {
      const gate = run.gate!;
      const [low, high] = wilson(gate.candidate, gate.n);
      return { x: run.snapshot.counts.train, y: gate.candidate, low, high, name: run.model_version ?? run.run_id, hollow: !gate.promote, n: gate.n };
    })
    .sort((a, b) => a.x - b.x);
}

export interface Replay {
  points: { x: number; y: number }[];
}

/** What random choice has reached with so many labels, by the report of a replay. Throws for what is none. */
export function replayOf(report: unknown): Replay {
  const rows = (report as { baseline_random: { labels: number; accuracy: number }[] }).baseline_random;
  const points = rows.map((row) => ({ x: Number(row.labels), y: Number(row.accuracy) })).sort((a, b) => a.x - b.x);
  if (!points.length || points.some((one) => !Number.isFinite(one.x + one.y))) throw new TypeError("no baseline");
  return { points };
}

/** The labels after which random choice has reached an accuracy; null if it never has. */
export function needed(random: Replay["points"], accuracy: number): number | null {
  const at = random.findIndex((one) => one.y >= accuracy);
  if (at < 0) return null;
  const [before, after] = [random[at - 1], random[at]!];
  return before ? before.x + ((accuracy - before.y) / (after.y - before.y)) * (after.x - before.x) : after.x;
}

/** Labels saved, with what the interval of the accuracy makes of it. */
export function savedWords(best: { x: number; y: number; low: number; high: number }, random: Replay["points"]): string {
  const [least, middle, most] = [best.low, best.y, best.high].map((accuracy) => needed(random, accuracy));
  const saved = (labels: number | null | undefined) => (labels == null ? `more than ${Math.round(random.at(-1)!.x - best.x)}` : String(Math.round(labels - best.x)));
  return `Labels saved against random choice: ${saved(middle)} (95 %: ${saved(least)} to ${saved(most)}).`;
}
