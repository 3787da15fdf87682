/** Boxes over a picture: drawn by pointer, touch or keyboard alone; and boxes that are only shown. */
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import * as draft from "./boxes";
import { choice, keysOf } from "./keys";
import type { Frame } from "./sample";
import { type Box, overlap } from "./values";

const LEAST = 4; // CSS pixels a side; less is a click
const TAKEN = 0.9; // overlap from which a suggestion is the box that it lies under
const FIRST = 0.3; // side of a box that is made by key

const hue = (labels: readonly string[], label: string) => `k${Math.max(0, labels.indexOf(label)) % 8}`;

function place(box: Box, frame: Frame) {
  return { x: frame.x + box.x * frame.width, y: frame.y + box.y * frame.height, width: box.width * frame.width, height: box.height * frame.height };
}

/** Boxes to look at: solid those of a person, dashed those of the model. */
export function Shown(props: { frame: Frame; boxes: readonly Box[]; labels: readonly string[]; dashed?: boolean; bare?: boolean }) {
  return (
    <svg class="boxes" aria-hidden="true">
      {props.boxes.map((box, at) => <Outline key={at} {...props} box={box} />)}
    </svg>
  );
}

function Outline(props: { frame: Frame; box: Box; labels: readonly string[]; dashed?: boolean; bare?: boolean }) {
  const at = place(props.box, props.frame);
  return (
    <g class={`${hue(props.labels, props.box.label)} ${props.dashed ? "dashed" : ""}`}>
      <rect class="edge" {...at} />
      {props.bare ? null : <text x={at.x + 4} y={at.y > 18 ? at.y - 5 : at.y + 15}>{props.box.label}{props.dashed ? "?" : ""}</text>}
    </g>
  );
}

type Drag = { id: number; from: draft.Point; box?: Box; edges?: draft.Edges; far: boolean };
const HANDLES: draft.Edges[] = [
  { left: true, top: true }, { top: true }, { right: true, top: true }, { right: true },
  { right: true, bottom: true }, { bottom: true }, { left: true, bottom: true }, { left: true },
];

export function Boxer(props: { frame: Frame; labels: readonly string[]; hints: readonly Box[] }) {
  const { frame, labels } = props;
  const svg = useRef<SVGSVGElement>(null);
  const drag = useRef<Drag | null>(null);
  const live = useSignal<Box | null>(null);
  const { boxes, at } = draft.draft.value;
  // One that was taken over is shown once.
  const hints = props.hints.filter((hint) => !boxes.some((box) => box.label === hint.label && overlap(box, hint) > TAKEN));
  // What is chosen by key is also where a screen reader is; at once, so that it never takes the focus back from a later Tab.
  useLayoutEffect(() => {
    if (at >= 0 && svg.current?.contains(document.activeElement)) svg.current.querySelector<SVGElement>(`[data-box="${at}"]`)?.focus();
  }, [at]);
  const point = (event: PointerEvent): draft.Point => {
    const stage = svg.current!.getBoundingClientRect();
    return { x: (event.clientX - stage.x - frame.x) / frame.width, y: (event.clientY - stage.y - frame.y) / frame.height };
  };
  const down = (event: PointerEvent, box?: Box, edges?: draft.Edges) => {
    if (event.button !== 0 || event.shiftKey || drag.current) return;
    event.stopPropagation();
    event.preventDefault();
    svg.current!.setPointerCapture(event.pointerId);
    drag.current = { id: event.pointerId, from: point(event), box, edges, far: false };
  };
  const move = (event: PointerEvent) => {
    const one = drag.current;
    if (!one || one.id !== event.pointerId || draft.extremes.value) return;
    const now = point(event);
    const [dx, dy] = [now.x - one.from.x, now.y - one.from.y];
    one.far ||= Math.abs(dx) * frame.width > LEAST || Math.abs(dy) * frame.height > LEAST;
    if (!one.far) return;
    if (!one.box) live.value = draft.around([one.from, now], draft.brush.value);
    else live.value = one.edges ? draft.resized(one.box, one.edges, dx, dy) : draft.moved(one.box, dx, dy);
  };
  const up = (event: PointerEvent) => {
    const one = drag.current;
    if (!one || one.id !== event.pointerId) return;
    drag.current = null;
    const made = live.value;
    live.value = null;
    if (made && made.width * frame.width >= LEAST && made.height * frame.height >= LEAST) return one.box ? draft.replace(made) : draft.add(made);
    if (!one.far) click(point(event), hints);
  };
  const stop = () => ((drag.current = null), (live.value = null));
  return (
    <svg ref={svg} class={`boxes editor ${draft.extremes.value ? "extreme" : ""}`} role="group" aria-label={`Boxes: ${boxes.length}`}
      onPointerDown={(event) => down(event)} onPointerMove={move} onPointerUp={up} onPointerCancel={stop}>
      {hints.map((box, which) => <Outline key={`h${which}`} frame={frame} box={box} labels={labels} dashed />)}
      {boxes.map((box, which) => (
        <g key={which} data-box={which} class={`${hue(labels, box.label)} ${which === at ? "chosen" : ""}`} tabindex={0} role="img"
          aria-label={`${box.label}, box ${which + 1} of ${boxes.length}`} onFocus={() => draft.choose(which)}>
          <Drawn box={which === at && live.value ? live.value : box} frame={frame} active={which === at} grab={(event, edges) => down(event, box, edges)} />
        </g>
      ))}
      {live.value && !drag.current?.box ? <g class={`${hue(labels, live.value.label)} chosen`}><rect class="edge" {...place(live.value, frame)} /></g> : null}
      {draft.extremes.value?.map((one, which) => <circle key={which} class="extreme-point" r="5" cx={frame.x + one.x * frame.width} cy={frame.y + one.y * frame.height} />)}
    </svg>
  );
}

function Drawn(props: { box: Box; frame: Frame; active: boolean; grab: (event: PointerEvent, edges?: draft.Edges) => void }) {
  const at = place(props.box, props.frame);
  return (
    <>
      <rect class="edge" {...at} />
      {props.active ? <rect class="body" {...at} onPointerDown={(event) => props.grab(event)} /> : null}
      <text x={at.x + 4} y={at.y > 18 ? at.y - 5 : at.y + 15}>{props.box.label}</text>
      {props.active
        ? HANDLES.map((edges, which) => {
            const [x, y] = [edges.left ? at.x : edges.right ? at.x + at.width : at.x + at.width / 2, edges.top ? at.y : edges.bottom ? at.y + at.height : at.y + at.height / 2];
            return (
              <g key={which} class="handle" onPointerDown={(event) => props.grab(event, edges)}>
                <circle class="reach" cx={x} cy={y} r="13" />
                <circle class="knob" cx={x} cy={y} r="5" />
              </g>
            );
          })
        : null}
    </>
  );
}

/** A click chooses the box that it is in, or takes over what the model suggests there; four of them make a box. */
function click(at: draft.Point, hints: readonly Box[]): void {
  const points = draft.extremes.value;
  if (points) {
    const all = [...points, at];
    draft.extremes.value = all.length < 4 ? all : null;
    const box = draft.around(all, draft.brush.value);
    if (all.length === 4 && box.width > 0 && box.height > 0) draft.add(box);
    return;
  }
  const mine = draft.under(draft.draft.value.boxes, at);
  const hint = hints[draft.under(hints, at)];
  if (mine < 0 && hint) draft.add(hint);
  else draft.choose(mine);
}

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A key that is about boxes; whether it was. `pixel` is the size of one of the picture's. */
export function boxKey(event: KeyboardEvent, pixel: { x: number; y: number }): boolean {
  if ((event.target as HTMLElement).matches("input, textarea, select")) return false;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "y" || (event.shiftKey && event.key.toLowerCase() === "z")) return draft.forth(), true;
    return event.key.toLowerCase() === "z" && (draft.back(), true);
  }
  const arrow = ARROWS[event.key];
  const box = draft.chosen.value;
  if (arrow) {
    if (!box) return false;
    const step = event.shiftKey ? 10 : 1;
    const [dx, dy] = [arrow[0] * pixel.x * step, arrow[1] * pixel.y * step];
    const after = event.altKey ? draft.resized(box, { right: true, bottom: true }, dx, dy) : draft.moved(box, dx, dy);
    if (after.width > 0 && after.height > 0) draft.replace(after);
    return true;
  }
  if (event.altKey) return false;
  if (event.key === "Escape" && (draft.extremes.value || box)) return (draft.extremes.value = null), draft.choose(-1), true;
  const is = (action: "removeBox" | "extreme" | "newBox") => (event.key.length > 1 || choice.value.on) && keysOf(action).includes(event.key.length > 1 ? event.key : event.key.toLowerCase());
  if (is("removeBox")) return draft.remove(), true;
  if (is("extreme")) return toggleExtreme(), true;
  return is("newBox") && (newBox(), true);
}

export function toggleExtreme(): void {
  draft.extremes.value = draft.extremes.value ? null : [];
}

/** A box in the middle, to be moved and sized by arrows: boxes need no pointer. */
export function newBox(): void {
  const start = (1 - FIRST) / 2;
  draft.add({ label: draft.brush.value, x: start, y: start, width: FIRST, height: FIRST });
}
