// Builds the page into ../static: `npm run build`. The same sources and versions give the same bytes.
import { build } from "esbuild";
import { copyFile, mkdir, readdir } from "node:fs/promises";

const out = process.argv[2] ?? "../static";
await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
  logLevel: "warning",
});
for (const name of await readdir("public")) await copyFile(`public/${name}`, `${out}/${name}`);
