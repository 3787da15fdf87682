/** Who one is: the token (in sessionStorage, never in the address), the project, and what the token may do. */
import { computed, signal } from "@preact/signals";

export type Role = "viewer" | "annotator" | "reviewer" | "operator" | "admin";
export interface Me {
  subject: string;
  role: Role;
  projects: string[];
  services: string[];
}
export interface Project {
  name: string;
  task: string;
  labels: string[];
  input: { columns: { name: string; kind: "number" | "category"; mean: number; scale: number }[] };
  guide?: string;
  suggestions: "blind" | "reveal_after" | "topk" | "accept_reject";
  policy: { batch: number; strategy: string };
}

const RANK: Role[] = ["viewer", "annotator", "reviewer", "operator", "admin"];
const TOKEN = "halfsure.token";
const PROJECT = "halfsure.project";

/** Takes the token out of the address at once, so that it is in no history, bookmark or screenshot. */
function arrive(): string {
  const address = new URL(location.href);
  const given = address.searchParams.get("token");
  const project = address.searchParams.get("project");
  if (project) sessionStorage.setItem(PROJECT, project);
  if (given) sessionStorage.setItem(TOKEN, given);
  if (given || project) {
    address.searchParams.delete("token");
    address.searchParams.delete("project");
    history.replaceState(null, "", address);
  }
  return sessionStorage.getItem(TOKEN) ?? "";
}

export const token = signal(arrive());
export const expired = signal(false); // the token is not known any more
export const me = signal<Me | null>(null);
export const projects = signal<Project[] | null>(null);
export const project = signal(sessionStorage.getItem(PROJECT) ?? "");
export const current = computed(() => projects.value?.find((one) => one.name === project.value) ?? null);

export function choose(name: string): void {
  sessionStorage.setItem(PROJECT, name);
  project.value = name;
}

export function signIn(given: string): void {
  sessionStorage.setItem(TOKEN, given.trim());
  token.value = given.trim();
  expired.value = false;
}

export function signOut(): void {
  sessionStorage.removeItem(TOKEN);
  token.value = "";
  me.value = null;
  projects.value = null;
}

export function may(role: Role): boolean {
  return me.value !== null && RANK.indexOf(me.value.role) >= RANK.indexOf(role);
}

/** Whether the service is behind this portal: the cloud of a device has no ingest of its own, for one. */
export function has(service: string): boolean {
  return me.value?.services.includes(service) ?? false;
}
