/** Which view is shown: the path of the address, without reloading the page. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export const path = signal(location.pathname);
export const search = signal(location.search);

export function go(to: string): void {
  if (to === location.pathname + location.search) return;
  history.pushState(null, "", to);
  arrived();
  // Whoever listens to the page begins at its top.
  document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function arrived(): void {
  path.value = location.pathname;
  search.value = location.search;
}
addEventListener("popstate", arrived);

export function Link(props: { to: string; children: ComponentChildren; class?: string; label?: string }) {
  const here = path.value === props.to || (props.to !== "/" && path.value.startsWith(`${props.to}/`));
  return (
    <a
      href={props.to}
      class={props.class}
      aria-label={props.label}
      aria-current={here ? "page" : undefined}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
        event.preventDefault();
        go(props.to);
      }}
    >
      {props.children}
    </a>
  );
}
