/** The champion, what wants to be it, and how each was judged; promote and roll back. */
import { useSignal } from "@preact/signals";
import { get, post, Refused } from "./api";
import type { Model, Page } from "./figures";
import { mainMetric, wilson } from "./figures";
import { age, Dialog, dialog, percent, short, useLive, Waiting } from "./parts";
import { may } from "./session";

const WORDS: Record<Model["state"], string> = {
  ACTIVE: "in service",
  PREVIOUS: "before it",
  ARCHIVED: "served once",
  REJECTED: "refused by the gate",
  CANDIDATE: "candidate",
  SHADOW: "beside it, unused",
};

export function Models() {
  const loaded = useLive(() => get<Page<Model>>("/api/retrain-trigger/v1/models", { limit: 100 }), 500, /^(model|training)/);
  const chosen = useSignal<{ model: Model | null } | null>(null);
  const said = useSignal("");
  if (!loaded.value) return <div class="page"><h1>Models</h1><Waiting of={loaded} what="The models" /></div>;
  const models = loaded.value.items;
  const ask = (model: Model | null) => {
    chosen.value = { model };
    dialog.value = "promote";
  };
  const carryOut = async (event: SubmitEvent) => {
    event.preventDefault();
    const reason = (new FormData(event.currentTarget as HTMLFormElement).get("reason") as string).trim() || "asked for on the page";
    const model = chosen.value?.model;
    dialog.value = null;
    try {
      if (model) await post(`/api/retrain-trigger/v1/models/${model.version}:activate`, { reason });
      else await post("/api/retrain-trigger/v1/models:rollback", { reason });
      said.value = model ? `${short(model.version)} is promoted.` : "Rolled back.";
    } catch (error) {
      said.value = error instanceof Refused ? error.message : String(error);
    }
    loaded.again();
  };
  return (
    <div class="page">
      <header class="title">
        <h1>Models</h1>
        {may("operator") && models.some((one) => one.state === "PREVIOUS") ? <button type="button" class="danger" onClick={() => ask(null)}>Roll back</button> : null}
      </header>
      <p class="said" role="status">{said.value}</p>
      {models.length ? null : <p class="blank">No model yet. The first one comes with the first labels, or is brought by <code>POST /v1/models</code>.</p>}
      <ol class="cards">
        {models.map((model) => <Card key={model.version} model={model} promote={() => ask(model)} />)}
      </ol>
      <Dialog name="promote" title={chosen.value?.model ? `Promote ${short(chosen.value.model.version)}?` : "Roll back to the version before?"}>
        <form class="stack" onSubmit={carryOut}>
          <p class="quiet">infer swaps to it without losing a request, and the samples that wait are scored again.</p>
          <label for="reason">Why</label>
          <input id="reason" name="reason" type="text" maxLength={500} autoFocus />
          <button type="submit" class="primary">{chosen.value?.model ? "Promote" : "Roll back"}</button>
        </form>
      </Dialog>
    </div>
  );
}

function Card(props: { model: Model; promote: () => void }) {
  const { model } = props;
  const { gate, metrics } = model;
  const [low, high] = gate ? wilson(gate.candidate, gate.n) : [0, 0];
  const failed = Object.entries(model.loads).filter(([, load]) => load.outcome === "failed");
  return (
    <li class={`card ${model.state.toLowerCase()}`}>
      <div>
        <span class={`state ${model.state.toLowerCase()}`}>{WORDS[model.state]}</span>
        <code title={model.version}>{short(model.version)}</code>
        <p class="quiet">made {age(model.created_at)} ago{model.lineage.run ? "" : ", brought along"}</p>
      </div>
      <div>
        <b class="figure-number" title={metrics ? mainMetric(metrics).meaning : ""}>{metrics ? percent(mainMetric(metrics).value) : "–"}</b>
        {gate ? <p class="quiet">{percent(low)} to {percent(high)}, {gate.n} samples</p> : <p class="quiet">not judged</p>}
      </div>
      <p class="why">
        {gate?.reasons.join("; ") ?? "Nobody has judged it yet."}
        {failed.map(([who, load]) => <span key={who} class="bad-words"> {who} could not load it: {load.error}</span>)}
      </p>
      <div>{may("operator") && model.state !== "ACTIVE" && model.state !== "REJECTED" ? <button type="button" onClick={props.promote}>Promote</button> : null}</div>
    </li>
  );
}
