/** Three charts, drawn as SVG; each has the same numbers as a table and as CSV. */
import { useSignal } from "@preact/signals";

export type Cell = string | number | null;
export interface Numbers {
  columns: string[];
  rows: Cell[][];
}

function csv(numbers: Numbers): string {
  const quoted = (cell: Cell) => {
    const text = cell === null ? "" : String(cell);
    // A cell that a spreadsheet would run as a formula is text.
    const safe = /^[=+@\t\r]|^-(?!\d)/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [numbers.columns, ...numbers.rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function save(name: string, numbers: Numbers): void {
  const url = URL.createObjectURL(new Blob([csv(numbers)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** A chart with its title, a sentence that says what it shows, and the numbers behind it. */
export function Figure(props: { title: string; words: string; numbers: Numbers; children: preact.ComponentChildren; wide?: boolean }) {
  const table = useSignal(false);
  return (
    <figure class={`figure ${props.wide ? "wide" : ""}`}>
      <figcaption>
        <h2>{props.title}</h2>
        <div class="tools">
          <button type="button" class="plain" aria-pressed={table.value} onClick={() => (table.value = !table.value)}>
            {table.value ? "Chart" : "Table"}<span class="unseen"> of {props.title}</span>
          </button>
          <button type="button" class="plain" onClick={() => save(props.title, props.numbers)}>
            CSV<span class="unseen"> of {props.title}</span>
          </button>
        </div>
        <p class="quiet">{props.words}</p>
      </figcaption>
      {table.value ? <Table numbers={props.numbers} name={props.title} /> : props.children}
    </figure>
  );
}

export function Table(props: { numbers: Numbers; name: string }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={`Table of ${props.name}`}>
      <table class="list">
        <thead><tr>{props.numbers.columns.map((name) => <th key={name} scope="col">{name}</th>)}</tr></thead>
        <tbody>
          {props.numbers.rows.map((row, at) => (
            <tr key={at}>
              {row.map((cell, column) => <td key={column} class={typeof cell === "number" ? "number" : ""}>
                {typeof cell === "number" ? cell.toLocaleString("en", { maximumFractionDigits: 4 }) : (cell ?? "–")}
              </td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export interface Point {
  x: number;
  y: number;
  low: number;
  high: number;
  name: string;
  hollow?: boolean;
}

const [W, H, LEFT, BOTTOM, TOP, RIGHT] = [1100, 280, 52, 30, 14, 16];
const HALF = 520; // a chart in one of two columns

/** Values with their intervals against a count. `y` is a share. */
export function Curve(props: { points: Point[]; random: { x: number; y: number }[]; x: string; y: string }) {
  const { points, random } = props;
  const most = Math.max(...[...points, ...random].map((one) => one.x), 1) * 1.04;
  const least = Math.max(0, Math.floor(Math.min(...points.map((one) => one.low), ...random.map((one) => one.y)) * 10 - 0.2) / 10);
  const x = (value: number) => LEFT + (value / most) * (W - LEFT - RIGHT);
  const y = (value: number) => TOP + (1 - (value - least) / (1 - least)) * (H - TOP - BOTTOM);
  const solid = points.filter((one) => !one.hollow);
  const line = solid.map((one, at) => `${at ? "L" : "M"}${x(one.x).toFixed(1)} ${y(one.y).toFixed(1)}`).join("");
  const band = [...solid.map((one) => `${x(one.x)},${y(one.high)}`), ...[...solid].reverse().map((one) => `${x(one.x)},${y(one.low)}`)].join(" ");
  const shares = [least, least + (1 - least) / 2, 1];
  const counts = [0, 0.25, 0.5, 0.75, 1].map((part) => Math.round((part * most) / 1.04));
  return (
    <svg class="chart" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`${props.y} against ${props.x}, ${points.length} points; the table has them`}>
      {shares.map((share) => (
        <g key={share}>
          <line class="rule" x1={LEFT} x2={W - RIGHT} y1={y(share)} y2={y(share)} />
          <text x={LEFT - 8} y={y(share) + 4} text-anchor="end">{Math.round(share * 100)} %</text>
        </g>
      ))}
      {[...new Set(counts)].map((count) => <text key={count} x={x(count)} y={H - 8} text-anchor="middle">{count}</text>)}
      <polygon class="band" points={band} />
      <polyline class="curve random" points={random.map((one) => `${x(one.x).toFixed(1)},${y(one.y).toFixed(1)}`).join(" ")} />
      <path class="curve" d={line} />
      {points.map((one) => (
        <circle key={one.name} class={one.hollow ? "dot hollow" : "dot"} cx={x(one.x)} cy={y(one.y)} r="4.5">
          <title>{`${one.name}: ${(one.y * 100).toFixed(1)} % with ${one.x} labels`}</title>
        </circle>
      ))}
    </svg>
  );
}

/** Counts that each contain the next. */
export function Funnel(props: { steps: [string, number | null][] }) {
  const most = Math.max(1, ...props.steps.map(([, count]) => count ?? 0));
  return (
    <dl class="funnel">
      {props.steps.map(([name, count]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
              <rect class="back" width="100" height="6" rx="1" />
              <rect class="bar-fill" width={((count ?? 0) / most) * 100} height="6" rx="1" />
            </svg>
            <span>{count === null ? "–" : count.toLocaleString("en")}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** Counts in equal steps from 0 to 1, on a scale of roots: a few that are unsure must be seen beside many that are not. */
export function Histogram(props: { counts: number[]; x: string }) {
  const most = Math.sqrt(Math.max(1, ...props.counts));
  const step = (HALF - LEFT) / props.counts.length;
  return (
    <svg class="chart" viewBox={`0 0 ${HALF} 200`} role="img" aria-label={`${props.x}, ${props.counts.length} steps; the table has them`}>
      {props.counts.map((count, at) => {
        const height = (Math.sqrt(count) / most) * 140;
        return (
          <g key={at}>
            <rect class="bar-fill" x={LEFT / 2 + at * step + 3} y={164 - height} width={step - 6} height={height} rx="3"><title>{count}</title></rect>
            <text x={LEFT / 2 + at * step + step / 2} y={158 - height} text-anchor="middle">{count || ""}</text>
            <text x={LEFT / 2 + at * step} y="188" text-anchor="middle">{(at / props.counts.length).toFixed(1)}</text>
          </g>
        );
      })}
      <text x={HALF - LEFT / 2} y="188" text-anchor="middle">1.0</text>
    </svg>
  );
}

/** Counts in order, as bars. */
export function Bars(props: { counts: number[]; words: string }) {
  const most = Math.max(1, ...props.counts);
  return (
    <svg class="chart" viewBox={`0 0 ${HALF} 90`} role="img" aria-label={`${props.words}; the table has them`}>
      <line class="rule" x1="0" x2={HALF} y1="88" y2="88" />
      {props.counts.map((count, at) => {
        const [width, height] = [HALF / props.counts.length, (count / most) * 82];
        return <rect key={at} class="bar-fill" x={at * width + 2} y={88 - height} width={width - 4} height={height} rx="2"><title>{count}</title></rect>;
      })}
    </svg>
  );
}
