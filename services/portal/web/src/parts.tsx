/** Small parts that several views share. */
import { signal, useSignal, useSignalEffect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Refused } from "./api";
import { listen } from "./events";
import { shown } from "./keys";
import { project } from "./session";

export const percent = (share: number, digits = 1) => `${(share * 100).toFixed(digits)} %`;
export const whole = (count: number) => count.toLocaleString("en");
export const short = (name: string) => (name.length > 14 ? `${name.slice(0, 10)}…` : name);

export function age(since: string | number, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - (typeof since === "number" ? since : Date.parse(since))) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export function Key(props: { children: string }) {
  return props.children ? <kbd>{props.children}</kbd> : null;
}

/** A button with the key that does the same. */
export function Button(props: { action: string; onClick: () => unknown; children: ComponentChildren; class?: string; plain?: boolean; pressed?: boolean; disabled?: boolean }) {
  return (
    <button type="button" class={props.plain ? "plain" : props.class} aria-pressed={props.pressed} disabled={props.disabled} onClick={() => void props.onClick()}>
      <span>{props.children}</span> <Key>{shown(props.action)}</Key>
    </button>
  );
}

export function Notice(props: { title: string; children?: ComponentChildren; tone?: "bad" | "calm" }) {
  return (
    <div class={`notice ${props.tone ?? "calm"}`}>
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

export interface Loaded<T> {
  value: T | null;
  error: Refused | null;
  again: () => void;
}

/** Loads, and loads again when something happens in the loop (at most once in `calm` ms) and every 15 s. */
export function useLive<T>(load: () => Promise<T>, calm = 800, kinds?: RegExp): Loaded<T> {
  const state = useSignal<{ value: T | null; error: Refused | null }>({ value: null, error: null });
  const latest = useRef(load);
  latest.current = load;
  const run = useRef<() => void>(() => undefined);
  useSignalEffect(() => {
    project.value; // another project is another page
    let gone = false;
    let timer = 0;
    const again = async () => {
      clearTimeout(timer);
      try {
        const value = await latest.current();
        if (!gone) state.value = { value, error: null };
      } catch (error) {
        if (gone) return;
        const refused = error instanceof Refused ? error : new Refused(0, "failed", String(error));
        state.value = { value: refused.away ? state.peek().value : null, error: refused };
      }
      if (!gone) timer = window.setTimeout(again, 15_000);
    };
    run.current = () => void again();
    void again();
    let soon = 0;
    const stop = listen((one) => {
      if (soon || (one && kinds && !kinds.test(one.type))) return;
      soon = window.setTimeout(() => {
        soon = 0;
        void again();
      }, calm);
    });
    return () => {
      gone = true;
      clearTimeout(timer);
      clearTimeout(soon);
      stop();
    };
  });
  return { ...state.value, again: () => run.current() };
}

/** What a view shows instead of itself while it has nothing, or cannot. */
export function Waiting(props: { of: Loaded<unknown>; what: string }) {
  const { error } = props.of;
  if (!error) return <p class="quiet" role="status">Loading {props.what} …</p>;
  return (
    <Notice title={error.status === 403 ? "Not for this token" : `${props.what} cannot be shown`} tone="bad">
      <p>{error.message}</p>
      <button type="button" onClick={props.of.again}>Try again</button>
    </Notice>
  );
}

/** A dialog that keeps the focus, closes with Escape and gives the focus back. */
export const dialog = signal<string | null>(null);
export function Dialog(props: { name: string; title: string; children: ComponentChildren; drawer?: boolean; wide?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const open = dialog.value === props.name;
  useEffect(() => {
    if (open && !element.current?.open) element.current?.showModal();
    if (!open && element.current?.open) element.current.close();
  }, [open]);
  if (!open) return null;
  return (
    <dialog ref={element} class={props.drawer ? "drawer" : props.wide ? "wide" : undefined} aria-labelledby={`${props.name}-title`} onClose={() => (dialog.value = null)} onClick={(event) => event.target === element.current && (dialog.value = null)}>
      <header>
        <h2 id={`${props.name}-title`}>{props.title}</h2>
        <button type="button" class="plain" onClick={() => (dialog.value = null)} aria-label="Close">✕</button>
      </header>
      {props.children}
    </dialog>
  );
}
