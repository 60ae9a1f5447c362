// Opens pages in Chromium and lets them call gateways. The argument is JSON: [{"name", "page", "gateway", "refused"}].
// Prints one line per check, and ends with 1 when one has failed.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const profile = await mkdtemp(join(tmpdir(), "execgate-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  headless: true,
  chromiumSandbox: false,
  args: [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
  ],
});
let failed = 0;
try {
  console.log(`browser: Chromium ${context.browser()?.version() ?? ""}`.trim());
  for (const { name, page: url, gateway, refused } of JSON.parse(process.argv[2])) {
    const page = await context.newPage();
    await page.goto(url);
    for (const { name: check, fault } of await page.evaluate(([g, r]) => window.run(g, r), [gateway, refused])) {
      console.log(`${fault ? "FAIL" : "ok  "} ${name}: ${check}${fault ? `: ${fault}` : ""}`);
      failed += fault ? 1 : 0;
    }
    await page.close();
  }
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
