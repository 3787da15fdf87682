/** A sample as it is, in the space that there is: one component for a picture, a text, a row and a series. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { current } from "./session";
import type { Line, View } from "./views";

/** How close one looks: pixels by which the whole is moved, after it was enlarged. */
export interface Lens {
  zoom: number;
  x: number;
  y: number;
}
export const WHOLE: Lens = { zoom: 1, x: 0, y: 0 };
const CLOSEST = 16;

/** Closer or farther, with the point at (x, y) from the middle of the stage staying where it is. */
export function nearer(lens: Lens, factor: number, x = 0, y = 0): Lens {
  const zoom = Math.min(CLOSEST, Math.max(1, lens.zoom * factor));
  const by = zoom / lens.zoom;
  return zoom === 1 ? WHOLE : { zoom, x: x - (x - lens.x) * by, y: y - (y - lens.y) * by };
}

/** Where the picture lies in its stage, in CSS pixels. */
export interface Frame {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Look {
  lens: Lens;
  move: (lens: Lens) => void;
}

interface Props {
  view: View | undefined;
  name: string;
  small?: boolean;
  look?: Look;
  over?: (frame: Frame) => ComponentChildren; // what is drawn over a picture
}

export function Sample(props: Props) {
  const { view, small } = props;
  if (!view) return <div class="sample loading" aria-busy="true" role="img" aria-label="The sample is being fetched" />;
  switch (view.kind) {
    case "image":
      return <Picture bitmap={view.bitmap} words={`${view.words}, sample ${props.name}`} look={props.look} over={props.over} />;
    case "row":
      return small ? <div class="sample text">{Object.values(view.row).slice(0, 4).join(" · ")}</div> : <Row row={view.row} />;
    case "series":
      return <Series lines={view.lines} last={view.last} words={view.words} small={small} />;
    case "text":
      return small ? <div class="sample text">{view.text.slice(0, 400)}</div> : <div class="sample text" tabIndex={0} role="region" aria-label="Text">{view.text}</div>;
    case "none":
      return <div class="sample text quiet">{view.words}</div>;
  }
}

const LARGEST_PIXEL = 40;

function Picture(props: { bitmap: ImageBitmap; words: string; look?: Look; over?: Props["over"] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useSignal<Frame | null>(null);
  const { bitmap, look } = props;
  const lens = look?.lens ?? WHOLE;
  const draw = () => {
    const one = canvas.current;
    const [wide, high] = [one?.clientWidth ?? 0, one?.clientHeight ?? 0];
    if (!one || !wide || !high) return;
    const ratio = devicePixelRatio || 1;
    // A picture of few pixels is easier to read when it is not blown up to the whole stage.
    const scale = Math.min(wide / bitmap.width, high / bitmap.height, LARGEST_PIXEL) * lens.zoom;
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    const at = { x: (wide - width) / 2 + lens.x, y: (high - height) / 2 + lens.y };
    if (one.width !== wide * ratio || one.height !== high * ratio) [one.width, one.height] = [wide * ratio, high * ratio];
    const context = one.getContext("2d")!;
    context.clearRect(0, 0, one.width, one.height);
    context.imageSmoothingEnabled = scale * ratio < 3; // pixels that are enlarged stay pixels
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, at.x * ratio, at.y * ratio, width * ratio, height * ratio);
    if (props.over) frame.value = { ...at, width, height };
  };
  // In the same frame as the rest of the page, so that what is asked and what is shown never differ.
  useLayoutEffect(draw, [bitmap, lens, Boolean(props.over)]);
  useEffect(() => {
    const watch = new ResizeObserver(draw);
    if (canvas.current) watch.observe(canvas.current);
    return () => watch.disconnect();
  }, [bitmap, lens, Boolean(props.over)]);
  const pan = (event: PointerEvent) => {
    const held = event.buttons === 4 || (event.buttons === 1 && (!props.over || event.shiftKey));
    if (look && held && lens.zoom > 1) look.move({ ...lens, x: lens.x + event.movementX, y: lens.y + event.movementY });
  };
  const wheel = (event: WheelEvent) => {
    if (!look) return;
    event.preventDefault();
    const stage = canvas.current!.getBoundingClientRect();
    look.move(nearer(lens, event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - stage.x - stage.width / 2, event.clientY - stage.y - stage.height / 2));
  };
  return (
    <div class="sample picture" onPointerMove={pan} onWheel={wheel}>
      <canvas ref={canvas} role="img" aria-label={props.words} />
      {frame.value && props.over ? props.over(frame.value) : null}
    </div>
  );
}

const plain = (value: unknown) => (typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 6 }) : String(value));
const FAR = 3; // standard deviations at which a bar ends

function Row(props: { row: Record<string, unknown> }) {
  const known = new Map(current.value?.input.columns.map((one) => [one.name, one]));
  const names = [...known.keys(), ...Object.keys(props.row)].filter((name, at, all) => name in props.row && all.indexOf(name) === at);
  return (
    <div class="sample row" tabIndex={0} role="region" aria-label="The row">
      <table>
        <tbody>
          {names.map((name) => {
            const [value, column] = [props.row[name], known.get(name)];
            const measured = column?.kind === "number" && typeof value === "number" && (column.mean !== 0 || column.scale !== 1);
            return (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{plain(value)}</td>
                <td class="far">{measured ? <Far z={(value - column.mean) / column.scale} /> : null}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** How far from the mean a value is, in standard deviations. */
function Far(props: { z: number }) {
  const end = Math.max(-FAR, Math.min(FAR, props.z));
  return (
    <svg viewBox="-3 0 6 1" preserveAspectRatio="none" role="img" aria-label={`${props.z.toFixed(1)} standard deviations from the mean`}>
      <rect class="back" x="-3" width="6" height="1" />
      <rect class={Math.abs(props.z) >= 2 ? "bar-fill" : "bar-fill mild"} x={Math.min(0, end)} width={Math.abs(end)} height="1" />
      <line class="middle" x1="0" x2="0" y1="0" y2="1" />
    </svg>
  );
}

const FEW = 3;

function Series(props: { lines: Line[]; last: Record<string, unknown>; words: string; small?: boolean }) {
  const lines = props.small ? props.lines.slice(0, FEW) : props.lines;
  const others = Object.entries(props.last).filter(([name]) => !props.lines.some((line) => line.name === name));
  const drawn = lines.map((line) => <Trace key={line.name} line={line} words={props.words} bare={props.small} />);
  if (props.small) return <div class="sample series small">{drawn}</div>;
  return (
    <div class="sample series" tabIndex={0} role="region" aria-label={props.words}>
      {drawn}
      {others.map(([name, value]) => <p key={name} class="quiet">{name}, at the last point: <b>{plain(value)}</b></p>)}
    </div>
  );
}

/** One column over time; the point that is asked about is the last. */
function Trace(props: { line: Line; words: string; bare?: boolean }) {
  const { name, values } = props.line;
  const [low, high, last] = [Math.min(...values), Math.max(...values), values.at(-1)!];
  const y = (value: number) => 37 - ((value - low) / (high - low || 1)) * 34;
  const path = values.map((value, at) => `${((at / Math.max(1, values.length - 1)) * 98).toFixed(2)},${y(value).toFixed(2)}`).join(" ");
  const drawing = (
    <svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label={`${name}: ${props.words}, from ${plain(low)} to ${plain(high)}, at last ${plain(last)}`}>
      <polyline points={path} />
      <line class="last" x1="98" x2="98.001" y1={y(last)} y2={y(last)} />
    </svg>
  );
  if (props.bare) return drawing;
  return (
    <figure>
      <figcaption><b>{name}</b> <span class="quiet">{plain(low)} to {plain(high)}</span> <span class="now">{plain(last)}</span></figcaption>
      {drawing}
    </figure>
  );
}
