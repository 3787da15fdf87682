/** One sample's whole story; and the samples there are. */
import { get } from "./api";
import type { Page } from "./figures";
import { age, percent, short, useLive, Waiting } from "./parts";
import { Shown } from "./boxer";
import { type Frame, Sample } from "./sample";
import { current } from "./session";
import { Link, path } from "./router";
import { boxesOf, saidBy, type Suggestion, type Value, words } from "./values";
import { load } from "./views";

interface Stored {
  sample_id: string;
  state: string;
  content: { media_type: string; bytes: number };
  captured_at: string;
  stored_at: string;
  tags: string[];
}
interface Story {
  events: { id: string; type: string; time: string; source?: string; data: Record<string, unknown> }[];
}

export function Samples() {
  const name = path.value.split("/")[2];
  return name ? <One key={name} name={decodeURIComponent(name)} /> : <All />;
}

function All() {
  const loaded = useLive(() => get<Page<Stored>>("/api/ingest/v1/samples", { limit: 100 }));
  if (!loaded.value) return <div class="page"><h1>Samples</h1><Waiting of={loaded} what="The samples" /></div>;
  return (
    <div class="page">
      <h1>Samples</h1>
      <div class="scroll" tabIndex={0} role="region" aria-label="Samples">
        <table class="list">
          <thead><tr><th scope="col">sample</th><th scope="col">type</th><th scope="col">bytes</th><th scope="col">came</th><th scope="col">tags</th></tr></thead>
          <tbody>
            {loaded.value.items.map((one) => (
              <tr key={one.sample_id}>
                <td><Link to={`/samples/${one.sample_id}`}>{one.sample_id}</Link></td>
                <td>{one.content.media_type}</td><td class="number">{one.content.bytes}</td><td>{age(one.stored_at)} ago</td><td>{one.tags.join(", ") || "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

function told(type: string, data: Record<string, unknown>): string {
  const top = data.top as Suggestion | undefined;
  switch (type) {
    case "sample.ingested":
      return `Came in${(data.tags as string[] | undefined)?.length ? `, tagged ${(data.tags as string[]).join(", ")}` : ""}`;
    case "sample.scored":
      return top ? `${short(String(data.model_version))} says ${words(saidBy(top))}, ${percent(top.confidence, 1)} sure` : "Seen while there was no model: an embedding only";
    case "sample.selected":
      return `Chosen to be asked: ${((data.reasons as string[] | undefined) ?? []).join("; ") || String(data.strategy)}`;
    case "label.accepted":
      return `Labelled ${words(data.value as Value)}${data.origin === "import" ? ", brought along" : `, by ${data.annotators} with agreement ${data.agreement}`}`;
    case "label.retracted":
      return `Label taken back${data.why ? `: ${data.why}` : ""}`;
    case "model.activated":
    case "model.rolled_back":
      return `${short(String(data.version))} ${type.endsWith("back") ? "came back into" : "went into"} service: ${data.reason}`;
    default:
      return type.replaceAll(".", " ").replaceAll("_", " ");
  }
}

function One(props: { name: string }) {
  const base = `/api/ingest/v1/samples/${encodeURIComponent(props.name)}`;
  const loaded = useLive(async () => {
    const [record, story, decision] = await Promise.all([
      get<Stored>(base),
      get<Story>(`${base}/history`),
      get<{ state: string; decision: Record<string, unknown> | null }>(`/api/select-uncertain/v1/decisions/${props.name}`).catch(() => null),
    ]);
    return { record, story, decision, view: await load(`${base}/content`, record.content.media_type) };
  }, 2000);
  if (!loaded.value) return <div class="page"><h1>{props.name}</h1><Waiting of={loaded} what="The sample" /></div>;
  const { record, story, decision, view } = loaded.value;
  const last = (type: string) => story.events.findLast((one) => one.type === type)?.data;
  const [label, top] = [last("label.accepted")?.value as Value | undefined, last("sample.scored")?.top as Suggestion | undefined];
  const [mine, hints] = [boxesOf(label), boxesOf(top && saidBy(top))];
  const labels = current.value?.labels ?? [];
  const over = mine.length || hints.length ? (frame: Frame) => <><Shown frame={frame} boxes={hints} labels={labels} dashed /><Shown frame={frame} boxes={mine} labels={labels} /></> : undefined;
  return (
    <div class="page">
      <header class="title"><h1 class="name">{record.sample_id}</h1><span class={`state ${record.state.toLowerCase()}`}>{(decision?.state ?? record.state).toLowerCase()}</span></header>
      <div class="story">
        <div class="stage"><Sample view={view} name={record.sample_id} over={over} /></div>
        <ol class="time-line">
          {story.events.map((one) => (
            <li key={one.id} class={one.type.split(".")[0]}>
              <time datetime={one.time}>{new Date(one.time).toLocaleTimeString()}</time>
              <p>{told(one.type, one.data)}</p>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}
