/** Light, dark, or as the system is. */
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const STORE = "halfsure.theme";
export const theme = signal<Theme>((localStorage.getItem(STORE) as Theme | null) ?? "system");

export function setTheme(next: Theme): void {
  localStorage.setItem(STORE, next);
  theme.value = next;
  applyTheme();
}

export function applyTheme(): void {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}
