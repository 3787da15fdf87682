/** Is labelling paying off, what waits, and what comes next: live. */
import { useSignal } from "@preact/signals";
import { Bars, type Cell, Curve, Figure, Funnel, Histogram, Table } from "./charts";
import { judged, mainMetric, type Overview, overview, type Replay, replayOf, savedWords, type Trigger } from "./figures";
import { live } from "./events";
import { age, percent, short, useLive, Waiting, whole } from "./parts";
import { Link } from "./router";
import { project } from "./session";

export function Dashboard() {
  const loaded = useLive(() => overview(project.value));
  if (!loaded.value) return <div class="page"><h1>Dashboard</h1><Waiting of={loaded} what="The dashboard" /></div>;
  const all = loaded.value;
  return (
    <div class="page">
      <header class="title">
        <h1>{project.value}</h1>
        <p class="quiet" role="status">{loaded.error ? `Not fresh: ${loaded.error.message}` : live.value ? "Live" : "Fresh every 15 s"}</p>
      </header>
      <Facts of={all} />
      <div class="figures">
        <Accuracy of={all} />
        <Steps of={all} />
        <Next of={all} />
        <Work of={all} />
        <Unsure of={all} />
        <Sources of={all} />
        <Classes of={all} />
        <Pipeline of={all} />
      </div>
    </div>
  );
}

function Facts(props: { of: Overview }) {
  const { queue, models, waiting, pace } = props.of;
  const active = models?.items.find((one) => one.state === "ACTIVE");
  const best = active?.metrics && mainMetric(active.metrics);
  const oldest = waiting?.items.map((one) => one.created_at).sort()[0];
  const facts: [string, string, string][] = [
    ["Model in service", active && best ? percent(best.value) : "none yet", active ? `${best?.meaning ?? "not judged"}, ${short(active.version)}` : "labels come first"],
    ["Labels", whole(queue ? queue.accepted - queue.imported : 0), queue?.imported ? `and ${whole(queue.imported)} brought along` : "given through the queue"],
    ["Waiting", whole(queue?.queued ?? 0), oldest && queue?.queued ? `the oldest for ${age(oldest)}` : "nothing waits"],
    ["At work", whole(queue?.leased ?? 0), queue?.leased ? "samples are with people" : "nobody holds a sample"],
    ["Seconds a label", pace?.seconds.p50 == null ? "–" : pace.seconds.p50.toFixed(1), pace?.seconds.p90 == null ? "nobody has answered yet" : `the median; one in ten takes over ${pace.seconds.p90.toFixed(1)}`],
  ];
  return (
    <dl class="facts">
      {facts.map(([name, value, words]) => (
        <div key={name}><dt>{name}</dt><dd><b>{value}</b><span>{words}</span></dd></div>
      ))}
    </dl>
  );
}

function Accuracy(props: { of: Overview }) {
  const replay = useSignal<Replay | null>(null);
  const trouble = useSignal("");
  const points = judged(props.of.runs?.items ?? []);
  const random = replay.value?.points ?? [];
  const numbers = {
    columns: ["labels", "accuracy", "low", "high", "evaluated on", "promoted", "model"],
    rows: [
      ...points.map((one) => [one.x, one.y, one.low, one.high, one.n, one.hollow ? "no" : "yes", one.name]),
      ...random.map((one) => [one.x, one.y, null, null, null, null, "random choice, replayed"]),
    ],
  };
  const words = points.length
    ? `Each model on the pinned evaluation set (${points.at(-1)!.n} samples), with its 95 % interval. Hollow: refused by the gate.`
    : "The first model appears here once enough labels are in.";
  const read = async (file: File | undefined) => {
    if (!file) return;
    try {
      replay.value = replayOf(JSON.parse(await file.text()));
      trouble.value = "";
    } catch {
      trouble.value = `${file.name} is no report of a replay: it has no baseline_random.`;
    }
  };
  const best = points.findLast((one) => !one.hollow);
  return (
    <Figure title="Accuracy against labels" words={words} numbers={numbers} wide>
      {points.length ? <Curve points={points} random={random} x="labels" y="accuracy" /> : <p class="blank">No model has been judged yet.</p>}
      <p class="quiet" role="status">
        {trouble.value || (replay.value && best ? savedWords(best, random) : "What random choice would have needed only a replay on labelled data can say; halfsure demo makes one.")}{" "}
        <label class="pick">Compare with its report<input type="file" class="unseen" accept="application/json" onChange={(event) => void read(event.currentTarget.files?.[0])} /></label>
      </p>
    </Figure>
  );
}

function Steps(props: { of: Overview }) {
  const { ingest, selection, queue, runs } = props.of;
  const last = runs?.items.find((run) => run.state === "SUCCEEDED");
  const steps: [string, number | null][] = [
    ["ingested", ingest ? (ingest.states.STORED ?? 0) : null],
    ["scored", selection?.seen ?? null],
    ["asked", queue?.asked ?? null],
    ["labelled", queue ? queue.accepted - queue.imported : null],
    ["trained on", last ? last.snapshot.counts.train : 0],
  ];
  return (
    <Figure title="From sample to model" words="How far samples have come." numbers={{ columns: ["step", "samples"], rows: steps }}>
      <Funnel steps={steps} />
      {selection?.waiting_for ? <p class="quiet">Next questions: {selection.waiting_for}.</p> : null}
    </Figure>
  );
}

function missing(trigger: Trigger): string {
  if (trigger.active_run) return "A model is being trained now.";
  const left = trigger.rule.n - trigger.counters.new;
  const classes = Object.entries(trigger.counters.per_class).filter(([, count]) => count < trigger.rule.min_per_class);
  if (left > 0) return `${left} more ${left === 1 ? "label starts" : "labels start"} a run.`;
  if (classes.length) return `Too few labels of ${classes.map(([name]) => name).slice(0, 4).join(", ")}: each class needs ${trigger.rule.min_per_class}.`;
  if (trigger.cooldown_until && Date.parse(trigger.cooldown_until) > Date.now()) return `It rests for ${age(Date.now(), Date.parse(trigger.cooldown_until))} more.`;
  return trigger.fires ? "A run is about to start." : `It waits for: ${Object.keys(trigger.missing).join(", ").replaceAll("_", " ") || "new labels"}.`;
}

function Next(props: { of: Overview }) {
  const { trigger, runs } = props.of;
  if (!trigger) return null;
  const done = Math.min(trigger.counters.new, trigger.rule.n);
  const last = runs?.items.slice(0, 5) ?? [];
  const why = last[0] ? ` The last one came by ${last[0].reason.replaceAll("_", " ")}.` : "";
  const rows = last.map((run) => [run.reason, run.state.toLowerCase(), run.snapshot.counts.new, run.gate?.candidate ?? null, run.requested_at]);
  return (
    <Figure title="The next training" words={missing(trigger) + why} numbers={{ columns: ["why", "state", "new labels", "accuracy", "asked for"], rows }}>
      <div class="meter">
        <svg viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={`${done} of ${trigger.rule.n} labels`}>
          <rect class="back" width="100" height="6" rx="1" /><rect class="bar-fill" width={(done / trigger.rule.n) * 100} height="6" rx="1" />
        </svg>
        <span>{done} of {trigger.rule.n}</span>
      </div>
      <ol class="lines">
        {last.map((run) => (
          <li key={run.run_id}>
            <span class={`state ${run.state.toLowerCase()}`}>{run.state.toLowerCase()}</span>
            <span>{run.snapshot.counts.new} new labels</span>
            <span class="quiet">{age(run.requested_at)} ago, by {run.reason}</span>
          </li>
        ))}
      </ol>
    </Figure>
  );
}

function Work(props: { of: Overview }) {
  const { pace } = props.of;
  if (!pace) return null;
  const skips = Object.entries(pace.skipped);
  const rows: Cell[][] = [
    ...pace.by_hour.map((n, at) => [`answers, ${pace.by_hour.length - at} h ago`, n]),
    ["seconds, p50", pace.seconds.p50], ["seconds, p90", pace.seconds.p90],
    ...skips.map(([why, n]) => [`skipped: ${why}`, n]),
  ];
  const now = pace.by_hour.at(-1)!;
  return (
    <Figure title="How the work goes" words={`${now} ${now === 1 ? "answer" : "answers"} in the last hour; each bar is an hour of the last ${pace.by_hour.length}.`} numbers={{ columns: ["what", "value"], rows }}>
      <Bars counts={pace.by_hour} words="Answers by hour" />
      <p class="quiet">{skips.length ? `Skipped: ${skips.slice(0, 5).map(([why, n]) => `${why} ${n}`).join(", ")}.` : "Nothing was skipped."}</p>
    </Figure>
  );
}

function Unsure(props: { of: Overview }) {
  const counts = props.of.selection?.score_histogram;
  if (!counts) return null;
  const drift = props.of.trigger?.drift;
  const rows = counts.map((count, at) => [`${(at / 10).toFixed(1)}–${((at + 1) / 10).toFixed(1)}`, count]);
  return (
    <Figure title="How unsure the model is" words="Samples that wait, by the score that ranks them: 1 is a coin toss. Heights are roots of counts." numbers={{ columns: ["uncertainty", "samples"], rows }}>
      <Histogram counts={counts} x="Uncertainty of the samples that wait" />
      <p class="quiet">{drift ? `Against the reference window: PSI ${drift.psi.toFixed(2)}${drift.drift ? ", which counts as drift" : ""}.` : "Drift is watched where the project's trigger has a drift rule."}</p>
    </Figure>
  );
}

function Sources(props: { of: Overview }) {
  const found = Object.entries(props.of.selection?.by_stream ?? {});
  if (!found.length) return null;
  const numbers = { columns: ["source", "waiting", "mean uncertainty"], rows: found.map(([name, one]): Cell[] => [name || "no name", one.n, one.uncertainty]) };
  return (
    <Figure title="By source" words="Samples that wait, by the stream that they came from, the least certain first." numbers={numbers}>
      <Table numbers={numbers} name="sources" />
    </Figure>
  );
}

function Pipeline(props: { of: Overview }) {
  const rows = props.of.services.map((one): Cell[] => [one.name, one.state, one.version, one.letters]);
  return (
    <Figure title="The services" words="Whether each answers and is ready, and how many events it could not handle." numbers={{ columns: ["service", "state", "version", "dead letters"], rows }}>
      <Table numbers={{ columns: ["service", "state", "version", "dead letters"], rows }} name="services" />
      {props.of.services.some((one) => one.letters) ? <p class="quiet"><Link to="/deadletters">Look at the dead letters</Link></p> : null}
    </Figure>
  );
}

function Classes(props: { of: Overview }) {
  const { queue, models } = props.of;
  if (!queue) return null;
  const recall = models?.items.find((one) => one.state === "ACTIVE")?.metrics?.per_class ?? {};
  const rows = Object.entries(queue.by_class).map(([name, count]) => [name, count, recall[name]?.recall ?? null] as [string, number, number | null]);
  const most = Math.max(1, ...rows.map(([, count]) => count));
  return (
    <Figure title="Labels by class" words="With the share of the class that the model in service finds." numbers={{ columns: ["class", "labels", "recall"], rows }}>
      {rows.length ? null : <p class="blank">No labels yet.</p>}
      <dl class="funnel classes">
        {rows.map(([name, count, found]) => (
          <div key={name}>
            <dt title={name}>{name}</dt>
            <dd>
              <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="back" width="100" height="6" rx="1" /><rect class="bar-fill" width={(count / most) * 100} height="6" rx="1" /></svg>
              <span>{whole(count)}{found === null ? "" : ` · ${percent(found, 0)}`}</span>
            </dd>
          </div>
        ))}
      </dl>
      <p class="quiet"><Link to="/models">The models</Link></p>
    </Figure>
  );
}
