// Bundles page.js, with the generated messages, into one script for a page.
import { build } from "esbuild";

await build({
  entryPoints: ["page.js"], outfile: "dist/page.js", bundle: true, format: "iife", target: "chrome110", sourcemap: "inline",
});
