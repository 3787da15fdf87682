/** Events that a service could not handle, with the reason; to be handled again or let go. */
import { useSignal } from "@preact/signals";
import { get, post, Refused } from "./api";
import type { Page } from "./figures";
import { age, useLive, Waiting } from "./parts";
import { me } from "./session";

interface Letter {
  id: string;
  topic: string;
  event: { type?: string; subject?: string } | null;
  raw: string | null;
  dlq: { reason: string; first_seen: string; last_seen: string; attempts: number };
}

export function DeadLetters() {
  const said = useSignal("");
  const loaded = useLive(async () => {
    const services = me.value?.services ?? [];
    const pages = await Promise.all(
      services.map((service) => get<Page<Letter>>(`/api/${service}/v1/deadletters`, { limit: 100 }).catch((error: Refused) => {
        if (error.status === 403) throw error;
        return { items: [], cursor: null };
      })),
    );
    return pages.flatMap((page, at) => page.items.map((letter) => ({ service: services[at]!, letter })));
  });
  if (!loaded.value) return <div class="page"><h1>Dead letters</h1><Waiting of={loaded} what="The dead letters" /></div>;
  const act = async (service: string, letter: string, what: "replay" | "discard") => {
    try {
      if (what === "replay") await post(`/api/${service}/v1/deadletters/${letter}/replay`, {});
      else await post(`/api/${service}/v1/deadletters/${letter}/discard`, {});
      said.value = what === "replay" ? "Handled." : "Let go.";
    } catch (error) {
      said.value = error instanceof Refused ? error.message : String(error);
    }
    loaded.again();
  };
  return (
    <div class="page">
      <h1>Dead letters</h1>
      <p class="said" role="status">{said.value}</p>
      {loaded.value.length ? null : <p class="blank">None: every event was handled.</p>}
      <ol class="cards">
        {loaded.value.map(({ service, letter }) => (
          <li key={service + letter.id} class="card">
            <div><span class="state">{service}</span><p>{letter.event?.type ?? letter.topic}</p></div>
            <p class="why">{letter.dlq.reason}<span class="quiet"> {letter.dlq.attempts} × since {age(letter.dlq.first_seen)}</span></p>
            <div class="tools">
              <button type="button" onClick={() => act(service, letter.id, "replay")}>Replay</button>
              <button type="button" class="danger" onClick={() => act(service, letter.id, "discard")}>Discard</button>
            </div>
          </li>
        ))}
      </ol>
    </div>
  );
}
