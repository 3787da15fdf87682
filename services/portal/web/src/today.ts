/** How much one has answered: in this sitting, and today in this browser against one's own goal. */
import { signal } from "@preact/signals";
import { me, project } from "./session";

interface Day {
  day: string;
  n: number;
}
const GOAL = "halfsure.goal";

const store = () => `halfsure.today.${me.value?.subject ?? ""}.${project.value}`;
const today = () => new Date().toLocaleDateString("sv");

export const sitting = signal(0);
const changes = signal(0); // the store is no signal
export const goal = signal(Number(localStorage.getItem(GOAL)) || 0); // 0: none

export function answeredToday(): number {
  changes.value;
  try {
    const kept = JSON.parse(localStorage.getItem(store()) ?? "{}") as Partial<Day>;
    return kept.day === today() ? (kept.n ?? 0) : 0;
  } catch {
    return 0;
  }
}

function add(step: number): void {
  sitting.value += step;
  localStorage.setItem(store(), JSON.stringify({ day: today(), n: Math.max(0, answeredToday() + step) } satisfies Day));
  changes.value += 1;
}

export const count = () => add(1);
export const uncount = () => add(-1);

export function setGoal(n: number): void {
  goal.value = Number.isFinite(n) && n > 0 ? Math.round(n) : 0;
  if (goal.value) localStorage.setItem(GOAL, String(goal.value));
  else localStorage.removeItem(GOAL);
}
