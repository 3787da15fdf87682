/** Drop a sample: what a loaded version says, how unsure it is, and whether it would be asked. */
import { useSignal } from "@preact/signals";
import { call, get, post, Refused } from "./api";
import type { Page } from "./figures";
import { Notice, percent, short, useLive, whole } from "./parts";
import { Shown } from "./boxer";
import { Sample } from "./sample";
import { go } from "./router";
import { current, has, may } from "./session";
import { type Box, saidBy, type Suggestion, words } from "./values";
import { decode, type View } from "./views";

interface Prediction extends Suggestion {
  probabilities?: number[]; // none of a detector
  detections?: (Box & { confidence: number })[];
  scores: Record<string, number>;
}
interface Said {
  version: string;
  labels: string[];
  prediction: Prediction;
  waiting: number;
  unsurer: number;
}

export function Try() {
  const models = useLive(() => get<{ items: { version: string; active: boolean }[] }>("/api/infer/v1/loaded-models"), 1000, /^model/);
  const version = useSignal("");
  const file = useSignal<{ blob: Blob; type: string; view: View } | null>(null);
  const said = useSignal<Said | null>(null);
  const problem = useSignal("");
  const over = useSignal(false);
  const found = said.value?.prediction.detections ?? [];

  const ask = async () => {
    if (!file.value) return;
    problem.value = "";
    said.value = null;
    try {
      const input = { data: await base64(file.value.blob), media_type: file.value.type };
      const body = { inputs: [input], model_version: version.value || null };
      const answer = await post<{ model_version: string; labels: string[]; predictions: Prediction[] }>("/api/infer/v1/predict", body);
      const prediction = answer.predictions[0]!;
      const place = await waiting(uncertainty(prediction));
      said.value = { version: answer.model_version, labels: answer.labels, prediction, ...place };
    } catch (error) {
      problem.value = error instanceof Refused ? error.message : String(error);
    }
  };
  const take = async (blob: Blob | undefined | null) => {
    if (!blob) return;
    const type = blob.type.split(";")[0] || "application/json";
    try {
      file.value = { blob, type, view: await decode(blob, type) };
    } catch {
      problem.value = `A file of type ${type} cannot be read here; drop a picture, a text, or a row or a series as JSON.`;
      return;
    }
    await ask();
  };
  const send = async () => {
    try {
      const answer = await call("/api/ingest/v1/samples", { method: "POST", headers: { "content-type": file.value!.type }, raw: file.value!.blob });
      go(`/samples/${((await answer.json()) as { sample_id: string }).sample_id}`);
    } catch (error) {
      problem.value = error instanceof Refused ? error.message : String(error);
    }
  };
  return (
    <div class="page" onPaste={(event) => void take(event.clipboardData?.files[0])}>
      <header class="title">
        <h1>Try it</h1>
        <label class="inline">Version{" "}
          <select value={version.value} onChange={(event) => ((version.value = event.currentTarget.value), void ask())}>
            <option value="">in service</option>
            {models.value?.items.filter((one) => one.version !== "none").map((one) => <option key={one.version} value={one.version}>{short(one.version)}{one.active ? " (in service)" : ""}</option>)}
          </select>
        </label>
      </header>
      <div class="story">
        <label
          class={`drop stage ${over.value ? "over" : ""}`}
          onDragOver={(event) => (event.preventDefault(), (over.value = true))}
          onDragLeave={() => (over.value = false)}
          onDrop={(event) => (event.preventDefault(), (over.value = false), void take(event.dataTransfer?.files[0]))}
        >
          <input type="file" class="unseen" accept="image/*,application/json,text/plain" onChange={(event) => void take(event.currentTarget.files?.[0])} />
          {file.value ? <Sample view={file.value.view} name="dropped" over={found.length ? (frame) => <Shown frame={frame} boxes={found} labels={said.value!.labels} dashed /> : undefined} /> : <span class="quiet">Drop a picture, a text, or a row or a series as JSON, paste it, or click to choose. Nothing is stored.</span>}
        </label>
        <div class="verdict" role="status">
          {problem.value ? <Notice title="No prediction" tone="bad"><p>{problem.value}</p></Notice> : said.value ? <Verdict of={said.value} /> : <p class="quiet">What the model thinks appears here.</p>}
          {file.value && may("operator") && has("ingest") ? <button type="button" onClick={send}>Put it into the loop</button> : null}
        </div>
      </div>
    </div>
  );
}

/** The score that ranks the samples of the task. */
const uncertainty = (one: Prediction) => one.scores.margin ?? 1 - one.confidence;

async function waiting(score: number): Promise<{ waiting: number; unsurer: number }> {
  if (!has("select-uncertain")) return { waiting: 0, unsurer: 0 };
  const page = await get<Page<{ score: number }>>("/api/select-uncertain/v1/candidates", { sort: "score", limit: 500 });
  return { waiting: page.items.length, unsurer: page.items.filter((one) => one.score > score).length };
}

async function base64(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

function Verdict(props: { of: Said }) {
  const { prediction, labels, version, waiting: all, unsurer } = props.of;
  const score = uncertainty(prediction);
  const batch = current.value?.policy.batch ?? 0;
  const each = prediction.probabilities?.map((share, at) => [labels[at]!, share] as const) ?? prediction.detections!.map((one) => [one.label, one.confidence] as const);
  const rows = [...each].sort((a, b) => b[1] - a[1]).slice(0, 6);
  return (
    <>
      <p><b class="figure-number">{words(saidBy(prediction))}</b> {percent(prediction.confidence)} sure <span class="quiet">by {short(version)}</span></p>
      <dl class="funnel">
        {rows.map(([label, share], at) => (
          <div key={at}>
            <dt>{label}</dt>
            <dd><svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="back" width="100" height="6" rx="1" /><rect class="bar-fill" width={share * 100} height="6" rx="1" /></svg><span>{percent(share)}</span></dd>
          </div>
        ))}
      </dl>
      <p>
        Uncertainty {score.toFixed(2)}. {unsurer < batch ? "By that it would be asked in the next round: " : "By that it would not be asked now: "}
        {all ? `${whole(unsurer)} of the ${all === 500 ? "500 most uncertain" : whole(all)} samples that wait are more uncertain, and a round asks ${batch}.` : "nothing else waits."}
      </p>
      <p class="quiet">The round also spreads its questions, and asks some at random: the choice is the policy's, not this page's.</p>
    </>
  );
}
