/** Where people disagree, a reviewer decides. */
import { useSignal } from "@preact/signals";
import { get, post, Refused } from "./api";
import type { Page } from "./figures";
import { age, percent, Sample, useLive, Waiting } from "./parts";
import { current } from "./session";
import { type View, viewOf } from "./views";

interface Disputed {
  id: string;
  sample_id: string;
  content: { media_type: string } | null;
  answers: { id: string; annotator: string; value: string; kind: string }[];
  suggested_answer?: { value: string; confidence: number };
  changed_at: string;
}

export function Review() {
  const said = useSignal("");
  const loaded = useLive(async () => {
    const page = await get<Page<Disputed>>("/api/label-queue/v1/tasks", { state: "disputed", limit: 30 });
    const views = await Promise.all(page.items.map((one) => viewOf(one.id, one.content?.media_type ?? null)));
    return page.items.map((task, at) => ({ task, view: views[at] as View }));
  }, 1000, /^(task|label)/);
  if (!loaded.value) return <div class="page"><h1>Review</h1><Waiting of={loaded} what="The disputes" /></div>;
  const decide = async (task: string, value: string) => {
    try {
      await post(`/api/label-queue/v1/tasks/${task}:resolve`, { value });
      said.value = `Decided: ${value}.`;
    } catch (error) {
      said.value = error instanceof Refused ? error.message : String(error);
    }
    loaded.again();
  };
  return (
    <div class="page">
      <h1>Review</h1>
      <p class="said" role="status">{said.value}</p>
      {loaded.value.length ? null : <p class="blank">No disputes: where more than one person was asked, they agree.</p>}
      <ol class="cards">
        {loaded.value.map(({ task, view }) => {
          const votes = task.answers.filter((one) => one.kind === "counted");
          const values = [...new Set(votes.map((one) => one.value))];
          return (
            <li key={task.id} class="card dispute">
              <div class="thumb"><Sample view={view} name={task.sample_id} small /></div>
              <p class="why">
                {votes.map((one) => <span key={one.id}><b>{one.value}</b> says {one.annotator}. </span>)}
                {task.suggested_answer ? <span>Most probably <b>{task.suggested_answer.value}</b>, {percent(task.suggested_answer.confidence, 0)}, by how reliable they are. </span> : null}
                <span class="quiet">{age(task.changed_at)} ago</span>
              </p>
              <div class="tools">
                {values.map((value) => <button key={value} type="button" onClick={() => decide(task.id, value)}>{value}</button>)}
                <label class="unseen" for={task.id}>Another label</label>
                <select id={task.id} onChange={(event) => event.currentTarget.value && void decide(task.id, event.currentTarget.value)}>
                  <option value="">Another …</option>
                  {current.value?.labels.filter((label) => !values.includes(label)).map((label) => <option key={label}>{label}</option>)}
                </select>
              </div>
            </li>
          );
        })}
      </ol>
    </div>
  );
}
