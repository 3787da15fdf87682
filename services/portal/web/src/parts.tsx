/** Small parts that several views share. */
import { signal, useSignal, useSignalEffect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Refused } from "./api";
import { listen } from "./events";
import { project } from "./session";
import type { View } from "./views";

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

/** A sample as it is, in the space that there is. */
export function Sample(props: { view: View | undefined; name: string; zoom?: number; small?: boolean }) {
  const { view } = props;
  if (!view) return <div class="sample loading" aria-busy="true" role="img" aria-label="The sample is being fetched" />;
  switch (view.kind) {
    case "image":
      return <Picture bitmap={view.bitmap} words={`${view.words}, sample ${props.name}`} zoom={props.zoom ?? 1} />;
    case "row":
      return props.small ? <div class="sample text">{Object.values(view.row).slice(0, 4).join(" · ")}</div> : <Row row={view.row} />;
    case "series":
      return <Series points={view.points} words={view.words} />;
    case "text":
      return <div class="sample text" tabIndex={props.small ? undefined : 0} role={props.small ? undefined : "region"} aria-label={props.small ? undefined : "Text"}>{view.text}</div>;
    case "none":
      return <div class="sample text quiet">{view.words}</div>;
  }
}

const LARGEST_PIXEL = 40;

function Picture(props: { bitmap: ImageBitmap; words: string; zoom: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const pan = useRef({ x: 0, y: 0 });
  const draw = () => {
    const one = canvas.current;
    if (!one) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [one.clientWidth * ratio, one.clientHeight * ratio];
    if (!width || !height) return;
    if (one.width !== width || one.height !== height) [one.width, one.height] = [width, height];
    const { bitmap } = props;
    // A picture of few pixels is easier to read when it is not blown up to the whole stage.
    const fit = Math.min(width / bitmap.width, height / bitmap.height, LARGEST_PIXEL * ratio);
    const scale = fit * props.zoom;
    const context = one.getContext("2d")!;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = scale < 3; // pixels that are enlarged stay pixels
    context.imageSmoothingQuality = "high";
    if (props.zoom === 1) pan.current = { x: 0, y: 0 };
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    context.drawImage(bitmap, (width - w) / 2 + pan.current.x * ratio, (height - h) / 2 + pan.current.y * ratio, w, h);
  };
  // In the same frame as the rest of the page, so that what is asked and what is shown never differ.
  useLayoutEffect(draw, [props.bitmap, props.zoom]);
  useEffect(() => {
    const watch = new ResizeObserver(draw);
    if (canvas.current) watch.observe(canvas.current);
    return () => watch.disconnect();
  }, [props.bitmap, props.zoom]);
  const drag = (event: PointerEvent) => {
    if (event.buttons !== 1 || props.zoom === 1) return;
    pan.current = { x: pan.current.x + event.movementX, y: pan.current.y + event.movementY };
    draw();
  };
  return <canvas ref={canvas} class="sample picture" role="img" aria-label={props.words} onPointerMove={drag} />;
}

function Row(props: { row: Record<string, unknown> }) {
  return (
    <div class="sample row" tabIndex={0} role="region" aria-label="The row">
      <table>
        <tbody>
          {Object.entries(props.row).map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 6 }) : String(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Series(props: { points: number[]; words: string }) {
  const [low, high] = [Math.min(...props.points), Math.max(...props.points)];
  const at = (value: number, index: number) =>
    `${(index / Math.max(1, props.points.length - 1)) * 100},${40 - ((value - low) / (high - low || 1)) * 38 - 1}`;
  return (
    <svg class="sample series" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label={`${props.words}, from ${low} to ${high}`}>
      <polyline points={props.points.map(at).join(" ")} />
    </svg>
  );
}

/** A dialog that keeps the focus, closes with Escape and gives the focus back. */
export const dialog = signal<string | null>(null);
export function Dialog(props: { name: string; title: string; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const open = dialog.value === props.name;
  useEffect(() => {
    if (open && !element.current?.open) element.current?.showModal();
    if (!open && element.current?.open) element.current.close();
  }, [open]);
  if (!open) return null;
  return (
    <dialog ref={element} aria-labelledby={`${props.name}-title`} onClose={() => (dialog.value = null)} onClick={(event) => event.target === element.current && (dialog.value = null)}>
      <header>
        <h2 id={`${props.name}-title`}>{props.title}</h2>
        <button type="button" class="plain" onClick={() => (dialog.value = null)} aria-label="Close">✕</button>
      </header>
      {props.children}
    </dialog>
  );
}
