/** The public REST API, which is all that this page calls: /v1 is the portal's own, /api/APP-ID/v1 the services'. */
import { expired, project, token } from "./session";

/** A service's refusal (RFC 9457), or status 0 when nobody answered. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
  get away(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  body?: unknown; // sent as JSON
  raw?: Blob; // sent as it is
  query?: Record<string, string | number | undefined>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export function address(path: string, query: Call["query"] = {}): string {
  const url = new URL(path, location.origin);
  if (path.startsWith("/api/") && project.value) url.searchParams.set("project", project.value);
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
  return url.pathname + url.search;
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  return { authorization: `Bearer ${token.value}`, ...more };
}

/** The response, whatever is in it. Throws Refused. */
export async function call(path: string, how: Call = {}): Promise<Response> {
  const json: Record<string, string> = how.body === undefined ? {} : { "content-type": "application/json" };
  let answer: Response;
  try {
    answer = await fetch(address(path, how.query), {
      method: how.method ?? "GET",
      headers: headers({ ...json, ...how.headers }),
      body: how.raw ?? (how.body === undefined ? undefined : JSON.stringify(how.body)),
      signal: how.signal,
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (how.signal?.aborted) throw error;
    throw new Refused(0, "offline", "The server does not answer.");
  }
  if (answer.ok || answer.status === 304) return answer;
  if (answer.status === 401) expired.value = true;
  throw await refusal(answer);
}

export async function get<T>(path: string, query?: Call["query"]): Promise<T> {
  return (await call(path, { query })).json() as Promise<T>;
}

export async function post<T>(path: string, body: unknown, query?: Call["query"]): Promise<T> {
  return (await call(path, { method: "POST", body, query, headers: { "idempotency-key": randomKey() } })).json() as Promise<T>;
}

async function refusal(answer: Response): Promise<Refused> {
  try {
    const problem = (await answer.json()) as { type?: string; detail?: string };
    const code = problem.type?.split(":").pop() ?? "refused";
    return new Refused(answer.status, code, problem.detail ?? `The server says ${answer.status}.`);
  } catch {
    return new Refused(answer.status, "refused", `The server says ${answer.status}.`);
  }
}

/** crypto.randomUUID is for https and localhost only. */
export function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
