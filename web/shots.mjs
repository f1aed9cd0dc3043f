// Takes pictures of a running console, for the README and for looking at it:
//   node web/shots.mjs http://127.0.0.1:8480 '/sign-in/once?link=…' DIR
// The link is the one that the server prints; it works once.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, link, dir] = process.argv.slice(2);
if (!base || !link || !dir) {
  console.error("usage: node web/shots.mjs BASE-URL SIGN-IN-LINK DIRECTORY");
  process.exit(2);
}
mkdirSync(dir, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, baseURL: base, locale: "en-GB", timezoneId: "UTC" });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(link);
  await page.click("button.primary");
  await page.waitForSelector(".rail");
  // first follows the first link of a list, if the list has one.
  const first = async (list, selector) => {
    await page.goto(list);
    const link = page.locator(selector).first();
    return (await link.count()) ? link.getAttribute("href") : null;
  };
  const pages = {
    overview: "/", fleet: "/fleet", rollouts: "/rollouts", consent: "/consent", content: "/content", findings: "/findings", record: "/record",
    rollout: await first("/rollouts", "#rollouts a.strong"), bundle: await first("/content", "#bundles a.strong"),
    finding: await first("/findings", "#findings a.strong"), host: await first("/fleet?kind=real", "#hosts a.strong"),
  };
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const [name, path] of Object.entries(pages)) {
      if (!path) continue;
      await page.goto(path);
      await page.waitForTimeout(800);
      await page.screenshot({ path: join(dir, `${name}-${colorScheme}.png`), fullPage: ["overview", "rollout", "finding"].includes(name) });
    }
  }
} finally {
  await browser.close();
}
