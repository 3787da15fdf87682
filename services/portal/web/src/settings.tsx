/** One's own: keys, theme, and signing out. All of it stays in this browser. */
import { useSignal } from "@preact/signals";
import { ACTIONS, type Action, change, choice, keysOf, shown } from "./keys";
import { waiting } from "./outbox";
import { Key } from "./parts";
import { me, signOut } from "./session";
import { setTheme, type Theme, theme } from "./theme";
import { answeredToday, goal, setGoal } from "./today";

export function Settings() {
  const recording = useSignal<Action | null>(null);
  const record = (event: KeyboardEvent) => {
    if (!recording.value || event.key === "Tab") return;
    event.preventDefault();
    event.stopPropagation();
    const action = recording.value;
    recording.value = null;
    if (event.key === "Escape") return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const own = { ...choice.value.own };
    // A key does one thing: whoever had it loses it.
    for (const other of Object.keys(ACTIONS) as Action[])
      if (other !== action && keysOf(other).includes(key)) own[other] = keysOf(other).filter((one) => one !== key);
    change({ ...choice.value, own: { ...own, [action]: [key] } });
  };
  return (
    <div class="page narrow">
      <h1>Settings</h1>
      <section>
        <h2>Appearance</h2>
        <div role="radiogroup" aria-label="Theme" class="modes">
          {(["system", "light", "dark"] as Theme[]).map((one) => (
            <button key={one} type="button" class="plain" role="radio" aria-checked={theme.value === one} onClick={() => setTheme(one)}>
              {one === "system" ? "As the system" : one === "light" ? "Light" : "Dark"}
            </button>
          ))}
        </div>
      </section>
      <section>
        <h2>Keys</h2>
        <p>
          <label class="check">
            <input type="checkbox" checked={choice.value.on} onChange={(event) => change({ ...choice.value, on: event.currentTarget.checked })} />
            Single keys do things (off: only Tab and Enter, which suits speech input)
          </label>
        </p>
        <table class="keys">
          <tbody>
            {(Object.keys(ACTIONS) as Action[]).map((action) => (
              <tr key={action}>
                <th scope="row">{ACTIONS[action][0]}</th>
                <td>{keysOf(action).map((key) => <Key key={key}>{shown(key)}</Key>)}</td>
                <td>
                  <button type="button" class="plain" onKeyDown={record}
                    onClick={() => (recording.value = recording.value === action ? null : action)}>
                    {recording.value === action ? "Press a key …" : "Change"}
                    <span class="unseen"> for: {ACTIONS[action][0]}</span>
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        <button type="button" onClick={() => change({ on: true, own: {} })}>As they were</button>
      </section>
      <section>
        <h2>You</h2>
        <p>
          <label for="goal">Answers a day that you aim at (0: no goal)</label>{" "}
          <input id="goal" type="number" min="0" step="10" value={goal.value} onChange={(event) => setGoal(event.currentTarget.valueAsNumber)} />{" "}
          <span class="quiet">{answeredToday()} today, in this browser and project</span>
        </p>
        <p>{me.value ? <>You are <b>{me.value.subject}</b>, {me.value.role}.</> : null} {waiting.value ? `${waiting.value} answers wait in this browser to be sent.` : "Nothing waits in this browser."}</p>
        <button type="button" onClick={signOut}>Sign out</button>
      </section>
    </div>
  );
}
