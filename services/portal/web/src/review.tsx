/** Where people disagree, a reviewer decides: for one of the answers, or with another. */
import { useSignal } from "@preact/signals";
import { get, post, Refused } from "./api";
import { views } from "./ahead";
import { Boxer, boxKey, newBox } from "./boxer";
import * as draft from "./boxes";
import { asked } from "./desk";
import type { Page } from "./figures";
import { age, Dialog, dialog, percent, useLive, Waiting } from "./parts";
import { Thumb } from "./past";
import { Sample } from "./sample";
import { current } from "./session";
import { boxesOf, same, type Value, words } from "./values";
import { viewOf } from "./views";

interface Disputed {
  id: string;
  sample_id: string;
  content: { media_type: string } | null;
  answers: { id: string; annotator: string; value: Value; kind: string }[];
  suggested_answer?: { value: Value; confidence: number };
  changed_at: string;
}
interface Opinion {
  value: Value;
  who: string[];
}

/** The different answers, each with who gave it. */
function opinions(task: Disputed): Opinion[] {
  const found: Opinion[] = [];
  for (const one of task.answers.filter((answer) => answer.kind === "counted")) {
    const known = found.find((opinion) => same(opinion.value, one.value));
    if (known) known.who.push(one.annotator);
    else found.push({ value: one.value, who: [one.annotator] });
  }
  return found;
}

export function Review() {
  const said = useSignal("");
  const open = useSignal<Disputed | null>(null);
  const loaded = useLive(async () => {
    const page = await get<Page<Disputed>>("/api/label-queue/v1/tasks", { state: "disputed", limit: 30 });
    const seen = await Promise.all(page.items.map(async (one) => [one.id, await viewOf(one.id, one.content?.media_type ?? null)] as const));
    views.value = new Map([...views.value, ...seen]);
    return page.items;
  }, 1000, /^(task|label)/);
  if (!loaded.value) return <div class="page"><h1>Review</h1><Waiting of={loaded} what="The disputes" /></div>;
  const labels = current.value?.labels ?? [];
  const decide = async (task: string, value: Value) => {
    dialog.value = null;
    try {
      await post(`/api/label-queue/v1/tasks/${task}:resolve`, { value });
      said.value = `Decided: ${words(value)}.`;
    } catch (error) {
      said.value = error instanceof Refused ? error.message : String(error);
    }
    loaded.again();
  };
  const another = (task: Disputed) => {
    open.value = task;
    draft.brush.value = labels[0] ?? "";
    draft.begin(boxesOf(opinions(task)[0]?.value));
    dialog.value = "another";
  };
  return (
    <div class="page">
      <h1>Review</h1>
      <p class="said" role="status">{said.value}</p>
      {loaded.value.length ? null : <p class="blank">No disputes: where more than one person was asked, they agree.</p>}
      <ol class="cards">
        {loaded.value.map((task) => (
          <li key={task.id} class="card dispute">
            <ul class="opinions">
              {opinions(task).map(({ value, who }) => (
                <li key={who.join()}>
                  <div class="thumb"><Thumb task={task} labels={labels} value={value} /></div>
                  <button type="button" onClick={() => decide(task.id, value)}>{words(value)}</button>
                  <span class="quiet">{who.join(", ")}</span>
                </li>
              ))}
            </ul>
            <p class="why">
              {task.suggested_answer ? <span>Most probably <b>{words(task.suggested_answer.value)}</b>, {percent(task.suggested_answer.confidence, 0)}, by how reliable they are. </span> : null}
              <span class="quiet">{age(task.changed_at)} ago</span>
            </p>
            <button type="button" onClick={() => another(task)}>Another …</button>
          </li>
        ))}
      </ol>
      <Dialog name="another" title="What is right?" wide={asked.value === "detection"}>
        {open.value ? <Another key={open.value.id} task={open.value} labels={labels} decide={(value) => void decide(open.value!.id, value)} /> : null}
      </Dialog>
    </div>
  );
}

/** An answer that nobody gave. */
function Another(props: { task: Disputed; labels: string[]; decide: (value: Value) => void }) {
  const { task, labels, decide } = props;
  const ticks = useSignal<string[]>([]);
  const view = views.value.get(task.id);
  if (asked.value === "classification")
    return <ol class="labels">{labels.map((label) => <li key={label}><button type="button" class="choice" onClick={() => decide(label)}><span>{label}</span></button></li>)}</ol>;
  if (asked.value === "multi-label")
    return (
      <form class="stack" onSubmit={(event) => (event.preventDefault(), decide(labels.filter((label) => ticks.value.includes(label))))}>
        {labels.map((label) => (
          <label key={label} class="check">
            <input type="checkbox" checked={ticks.value.includes(label)} onChange={(event) => (ticks.value = event.currentTarget.checked ? [...ticks.value, label] : ticks.value.filter((one) => one !== label))} />
            {label}
          </label>
        ))}
        <button type="submit" class="primary">Decide</button>
      </form>
    );
  const pixel = view?.kind === "image" ? { x: 1 / view.bitmap.width, y: 1 / view.bitmap.height } : { x: 0.01, y: 0.01 };
  return (
    <div onKeyDown={(event) => boxKey(event, pixel) && event.preventDefault()}>
      <div class="stage"><Sample view={view} name={task.sample_id} over={(frame) => <Boxer frame={frame} labels={labels} hints={[]} />} /></div>
      <div class="tools">
        {labels.map((label) => <button key={label} type="button" aria-pressed={(draft.chosen.value?.label ?? draft.brush.value) === label} onClick={() => draft.paint(label)}>{label}</button>)}
        <button type="button" onClick={newBox}>New box</button>
        <button type="button" onClick={draft.remove} disabled={!draft.chosen.value}>Remove</button>
        <button type="button" class="primary" onClick={() => decide({ boxes: draft.draft.value.boxes })}>Decide</button>
      </div>
    </div>
  );
}
