/** How people fare: how much, how fast, how often like the others, and what the model's opinion does to them. */
import { get } from "./api";
import { Figure } from "./charts";
import type { Annotator, Page, Share } from "./figures";
import { percent, useLive, Waiting } from "./parts";
import { may } from "./session";

const shown = (one: Share) => (one.share === null ? "–" : `${percent(one.share, 0)} of ${one.n}`);

export function People() {
  const loaded = useLive(() => get<Page<Annotator>>("/api/label-queue/v1/annotators"), 2000, /^label/);
  if (!loaded.value) return <div class="page"><h1>People</h1><Waiting of={loaded} what="The figures" /></div>;
  const rows = loaded.value.items;
  const columns = ["who", "answers", "median s", "revised", "gold", "like others", "reliability", "like the model, told", "like the model, blind", "told − blind"];
  const cells = rows.map((one) => [
    one.annotator,
    one.answers,
    one.median_seconds,
    one.revised,
    shown(one.gold),
    shown(one.agreement),
    one.reliability === null ? "–" : percent(one.reliability, 0),
    shown(one.blind_gap.shown),
    shown(one.blind_gap.blind),
    one.blind_gap.gap === null ? "–" : `${percent(one.blind_gap.gap, 0)} (${one.blind_gap.interval!.map((end) => percent(end, 0)).join(" to ")})`,
  ]);
  return (
    <div class="page">
      <h1>{may("reviewer") ? "People" : "How you fare"}</h1>
      <Figure
        title="Annotators"
        words="A share of the samples never shows what the model thinks. Whoever agrees with it more often where it is told than where it is not may be led by it; the interval says how sure that is."
        numbers={{ columns, rows: cells }}
        wide
      >
        {rows.length ? (
          <div class="scroll" tabIndex={0} role="region" aria-label="Annotators">
            <table class="list">
              <thead><tr>{columns.map((name) => <th key={name} scope="col">{name}</th>)}</tr></thead>
              <tbody>{cells.map((row) => <tr key={row[0]}>{row.map((cell, at) => <td key={at} class={at ? "number" : ""}>{cell ?? "–"}</td>)}</tr>)}</tbody>
            </table>
          </div>
        ) : <p class="blank">Nobody has answered yet.</p>}
      </Figure>
    </div>
  );
}
