/** The page: who one is, which project, and one view at a time. */
import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { call, get, Refused } from "./api";
import { live, restart } from "./events";
import { Dashboard } from "./dashboard";
import { DeadLetters } from "./deadletters";
import { Label } from "./label";
import { Models } from "./models";
import { kick, open, waiting } from "./outbox";
import { Notice } from "./parts";
import { People } from "./people";
import { Review } from "./review";
import { Link, path } from "./router";
import { Samples } from "./samples";
import { choose, current, expired, has, may, me, project, projects, type Me, type Project, signIn, token } from "./session";
import { Settings } from "./settings";
import { applyTheme } from "./theme";
import { Try } from "./try";
import "./style.css";

const trouble = signal<Refused | null>(null);

async function arrive(): Promise<void> {
  if (!token.value) return;
  try {
    me.value = (await (await call("/v1/me")).json()) as Me;
    const page = await get<{ items: Project[] }>("/api/retrain-trigger/v1/projects", { limit: 500, project: undefined });
    projects.value = page.items;
    if (!page.items.some((one) => one.name === project.value)) choose(page.items[0]?.name ?? "");
    trouble.value = null;
    kick(true); // what an earlier page has left is sent as soon as it is known whose it is
  } catch (error) {
    trouble.value = error instanceof Refused ? error : new Refused(0, "failed", String(error));
    if (trouble.value.away) setTimeout(arrive, 2000);
  }
}

function App() {
  if (!token.value || expired.value) return <SignIn />;
  return (
    <>
      <a class="skip-link" href="#main">To the content</a>
      <header class="top">
        <Link to="/" class="brand" label="halfsure, start">
          <svg viewBox="0 0 32 32" aria-hidden="true"><circle cx="16" cy="16" r="12.5" /><path d="M16 3.5a12.5 12.5 0 0 1 0 25z" /></svg>
          <span>halfsure</span>
        </Link>
        <nav aria-label="Views">
          {VIEWS.filter((view) => view.shown()).map((view) => (
            <Link key={view.to} to={view.to}>{view.name}</Link>
          ))}
        </nav>
        <Projects />
      </header>
      <main id="main" tabIndex={-1}>{trouble.value ? <Trouble /> : me.value && projects.value ? <View /> : <p class="quiet">Loading …</p>}</main>
    </>
  );
}

function Projects() {
  const all = projects.value ?? [];
  return (
    <div class="where">
      <span class={`live ${live.value ? "on" : ""}`} title={live.value ? "Live" : "Not live"} />
      <label class="unseen" for="project">Project</label>
      <select id="project" value={project.value} onChange={(event) => choose(event.currentTarget.value)} disabled={all.length < 2}>
        {all.map((one) => <option key={one.name} value={one.name}>{one.name}</option>)}
      </select>
      <Link to="/settings" class="who" label={`Settings of ${me.value?.subject ?? ""}`}>{me.value?.subject ?? ""}</Link>
    </div>
  );
}

function Trouble() {
  return (
    <Notice title={trouble.value!.away ? "The server does not answer" : "It cannot go on"} tone="bad">
      <p>{trouble.value!.message} This page tries again by itself.</p>
    </Notice>
  );
}

function SignIn() {
  const kept = waiting.value;
  return (
    <main class="sign-in" id="main">
      <h1>halfsure</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          signIn(new FormData(event.currentTarget).get("token") as string);
          trouble.value = null;
          void arrive();
        }}
      >
        <label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="off" required autoFocus />
        <button type="submit" class="primary">Open</button>
        <p class="quiet">
          {expired.value ? "The token is not known here, or not any more. " : ""}
          {kept ? `${kept} ${kept === 1 ? "answer is" : "answers are"} kept in this browser and sent once you are back. ` : ""}
          <code>halfsure label</code> opens this page with the token of the stack on this machine; for another, ask whoever runs it.
        </p>
      </form>
    </main>
  );
}

interface ViewEntry {
  to: string;
  name: string;
  shown: () => boolean;
  view: () => preact.JSX.Element;
}
const VIEWS: ViewEntry[] = [
  { to: "/label", name: "Label", shown: () => may("annotator"), view: Label },
  { to: "/review", name: "Review", shown: () => may("reviewer"), view: Review },
  { to: "/dashboard", name: "Dashboard", shown: () => true, view: Dashboard },
  { to: "/models", name: "Models", shown: () => true, view: Models },
  { to: "/try", name: "Try it", shown: () => has("infer"), view: Try },
  { to: "/samples", name: "Samples", shown: () => has("ingest"), view: Samples },
  { to: "/people", name: "People", shown: () => may("annotator"), view: People },
  { to: "/deadletters", name: "Dead letters", shown: () => may("operator"), view: DeadLetters },
];

function View() {
  if (!current.value && path.value !== "/settings")
    return (
      <Notice title="There is no project yet">
        <p>A project says what is learnt and from which labels: <code>POST /v1/projects</code> on retrain-trigger, or <code>make demo</code> for one of handwritten digits.</p>
      </Notice>
    );
  if (path.value === "/settings") return <Settings />;
  const found = VIEWS.find((one) => one.to === `/${path.value.split("/")[1]}`);
  const view = found ?? VIEWS.find((one) => one.shown())!;
  if (!view.shown())
    return (
      <Notice title={`${view.name} is not for this token`}>
        <p>It is a {me.value!.role}'s: it may look at the <Link to="/dashboard">dashboard</Link>. Ask whoever runs this for one that may do more.</p>
      </Notice>
    );
  return <view.view />;
}

effect(() => {
  const name = VIEWS.find((one) => path.value.startsWith(one.to))?.name ?? "halfsure";
  document.title = project.value ? `${name} · ${project.value}` : name;
});
effect(() => {
  project.value;
  token.value;
  restart();
});
applyTheme();
void open().then(arrive);
render(<App />, document.getElementById("app")!);
