// Walks the console's main paths in Chromium. Started by the Go test TestBrowser
// (internal/edge/console), which serves the console over test data:
//   node console.test.mjs <base URL> <path of the one-time sign-in link>
// Any page error, console error or violation of the content security policy
// fails it. HOLDFAST_SHOTS names a directory for screenshots.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, link] = process.argv.slice(2);
const shots = process.env.HOLDFAST_SHOTS;
const wide = { width: 1440, height: 900 }, narrow = { width: 390, height: 844 };
const password = "correct horse battery";
const troubles = [];

if (shots) mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });

// open starts a browser profile of its own, and watches it.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: wide, baseURL: base, locale: "en-GB", timezoneId: "UTC", ...options });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  page.expected = []; // statuses that the test provokes
  page.on("pageerror", (e) => troubles.push(`${page.url()}: ${e}`));
  page.on("console", (m) => {
    if (m.type() !== "error" && m.type() !== "warning") return;
    if (page.expected.some((status) => m.text().includes(`status of ${status}`))) return;
    troubles.push(`${page.url()}: ${m.text()}`);
  });
  return page;
}

async function signIn(page, name) {
  await page.goto("/sign-in");
  await page.fill("[name=name]", name);
  await page.fill("[name=password]", password);
  await page.click("button.primary");
  await page.waitForSelector(".rail");
}

async function step(name, f) {
  const start = Date.now();
  await f();
  console.log(`ok   ${name} (${Date.now() - start} ms)`);
}

const text = (page, selector) => page.locator(selector).first().innerText();

try {
  const page = await open();

  await step("a person who is not signed in is asked to, and comes back", async () => {
    await page.goto("/fleet?state=silent");
    assert.match(page.url(), /\/sign-in\?back=%2Ffleet%3Fstate%3Dsilent$/);
  });

  await step("the one-time link signs in once", async () => {
    await page.goto(link);
    await page.fill("[name=password]", password);
    await page.click("button.primary");
    await page.waitForSelector(".rail");
    const again = await open();
    again.expected.push(403);
    await again.goto(link);
    await again.click("button.primary");
    assert.match(await text(again, "[role=alert]"), /used already/);
    await again.context().close();
  });

  await step("the overview says how the fleet is", async () => {
    await page.goto("/");
    assert.match(await text(page, "h1"), /199 of 201 hosts are protected/);
    assert.equal(await page.locator(".dots .dot").count(), 201);
    assert.match(await text(page, ".notice"), /approves itself/);
    assert.match(await text(page, ".clock"), /Local clock/);
  });

  await step("the fleet is filtered while a person types", async () => {
    await page.goto("/fleet");
    await page.keyboard.press("/");
    await page.keyboard.type("workbench");
    await page.waitForFunction(() => document.querySelectorAll("#hosts tbody tr").length === 1);
    await page.waitForURL(/\/fleet\?q=workbench$/);
    // A hand holds the button down for a while: nothing may take the link away meanwhile.
    await page.click("#hosts a.strong", { delay: 120 });
    await page.waitForSelector("#slots");
    assert.match(await text(page, "h1"), /workbench/);
    await page.goto("/fleet");
    await page.selectOption(".filter [name=state]", "silent");
    await page.waitForURL(/\/fleet\?state=silent$/);
    await page.waitForFunction(() => document.querySelectorAll("#hosts tbody tr").length === 1);
  });

  await step("a refused bundle names build, rule and field", async () => {
    await page.goto("/content");
    await page.locator("#bundles tr", { hasText: "refused" }).locator("a.strong").click();
    const failure = await text(page, "#failures");
    for (const part of ["0.0.9", "process.namespace_pid", "21 inputs"]) assert.ok(failure.includes(part), part);
  });

  await step("a finding appears on an open page", async () => {
    await page.goto("/findings");
    await page.waitForTimeout(500); // the stream of hints opens
    const before = await page.locator("#findings tbody tr").count();
    await page.request.post("/test/finding");
    await page.waitForSelector("#f-fresh");
    assert.ok(before > 0);
    await page.click("#findings tbody tr:nth-child(2) a.strong");
    await page.waitForSelector("#tree .is-it");
    assert.ok(await page.locator("#event .is-matched mark").count() >= 1);
    assert.match(await page.locator("a.technique").first().getAttribute("href"), /^https:\/\/attack\.mitre\.org\/techniques\/T\d{4}/);
  });

  await step("charts become live ones", async () => {
    await page.goto("/rollouts");
    await page.click("#rollouts tbody tr:first-child a.strong");
    await page.waitForSelector("#chart-evidence canvas");
    await page.waitForSelector("#chart-exposure canvas");
    assert.equal(await page.locator("#chart-evidence > svg").count(), 0);
  });
  const rollout = page.url();

  await step("people are let in and kept out", async () => {
    await page.goto("/people");
    await page.fill("#put-person [name=name]", "nora");
    await page.selectOption("#put-person [name=role]", "analyst");
    await page.fill("#put-person [name=password]", password);
    await page.click("#put-person button");
    await page.locator("#people tr", { hasText: "nora" }).locator("button").click();
    await page.locator("#people tr", { hasText: /nora[^]*may not sign in/ }).waitFor();
    if (shots) await page.screenshot({ path: join(shots, "people-wide-light.png") });
  });

  if (shots) await step("screenshots", () => takeShots(rollout));

  await step("without JavaScript everything is a page, a link or a form", async () => {
    const plain = await open({ javaScriptEnabled: false });
    await signIn(plain, "olga");
    await plain.goto(rollout);
    assert.equal(await plain.locator("#chart-evidence svg path.line").count(), 1);
    await plain.click("a.button:has-text('Pause')");
    await plain.waitForURL(/\/pause$/);
    await plain.fill("textarea", "a person wants to look");
    await plain.click("button.primary");
    assert.match(await text(plain, "h1 .tag"), /paused/);
    assert.match(await text(plain, "[role=status]"), /Paused/);
    await plain.click("a.button:has-text('Resume')");
    await plain.click("button.primary");
    assert.match(await text(plain, "h1 .tag"), /running/);
    await plain.goto("/fleet");
    await plain.selectOption("[name=state]", "silent");
    await plain.click(".filter button");
    assert.equal(await plain.locator("#hosts tbody tr").count(), 1);
    await plain.goto("/fleet?role=build");
    await plain.click("#hosts tbody tr:last-child a");
    const host = new URL(plain.url()).pathname;
    await plain.click("a.button:has-text('Revoke')");
    await plain.fill("textarea", "retired");
    await plain.click("button.primary");
    assert.match(await text(plain, "h1 .tag"), /revoked/);
    assert.match(await text(plain, "#revocation"), /olga[^]*retired/);
    await plain.goto("/fleet");
    await plain.selectOption("[name=state]", "revoked");
    await plain.click(".filter button");
    assert.equal(await plain.locator("#hosts tbody a").getAttribute("href"), host);
    await plain.goto("/fleet?state=silent");
    await plain.click(".theme button[value=dark]");
    assert.equal(await plain.locator("html").getAttribute("data-theme"), "dark");
    assert.match(plain.url(), /state=silent/);
    for (const path of ["/", "/content", "/findings", "/record", "/account"]) {
      const answer = await plain.goto(path);
      assert.equal(answer.status(), 200, path);
    }
    await plain.click("button:has-text('Sign out')");
    await plain.waitForURL(/\/sign-in/);
    await plain.context().close();
  });

  await step("a viewer is offered nothing that would be refused", async () => {
    const viewer = await open();
    viewer.expected.push(403);
    await signIn(viewer, "vic");
    assert.equal(await viewer.locator("nav a[href='/findings']").count(), 0);
    assert.equal((await viewer.goto("/findings")).status(), 403);
    await viewer.goto(rollout);
    assert.equal(await viewer.locator(".head .actions").count(), 0);
    await viewer.context().close();
  });

  await step("halting is one action, and every open page shows it", async () => {
    const other = await open();
    await signIn(other, "vic");
    await other.goto(rollout);
    await other.waitForTimeout(500);
    await page.goto(rollout);
    await page.click("a.button.grave");
    await page.waitForSelector("dialog[open] form.confirm");
    await page.keyboard.press("Enter"); // the button has the focus
    await page.waitForURL(/done=halt/);
    assert.match(await text(page, "h1 .tag"), /halted/);
    await other.waitForFunction(() => /halted/.test(document.querySelector("h1 .tag").textContent));
    assert.equal(await other.locator("#chart-evidence canvas").count(), 1, "the live chart survives the update, once");
    assert.equal(await other.locator("#chart-evidence > svg").count(), 0);
    await other.context().close();
  });

  await step("revoking a host asks in place, and takes a reason", async () => {
    await page.goto("/fleet?role=build");
    await page.click("#hosts tbody tr a");
    await page.click("a.button.grave");
    await page.waitForSelector("dialog[open] form.confirm");
    if (shots) await page.screenshot({ path: join(shots, "revoke-wide-light.png") });
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("dialog[open] textarea:invalid").count(), 1);
    await page.fill("dialog[open] textarea", "stolen");
    await page.click("dialog[open] button.primary");
    await page.waitForURL(/done=revoke/);
    assert.match(await text(page, "#revocation"), /stolen/);
    if (shots) await page.screenshot({ path: join(shots, "revoked-wide-light.png") });
  });

  await step("nothing is wider than a narrow screen", async () => {
    const phone = await open({ viewport: narrow });
    await signIn(phone, "olga");
    for (const path of ["/", "/fleet", "/content", "/consent", "/rollouts", new URL(rollout).pathname, "/findings", "/record"]) {
      await phone.goto(path);
      const over = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${path} is ${over} px too wide`);
    }
    await phone.context().close();
  });

  assert.deepEqual(troubles, [], "errors in the browser's console");
  console.log("ok   no error and no policy violation in the browser's console");
} finally {
  await browser.close();
}

async function takeShots(rollout) {
  const pages = { overview: "/", fleet: "/fleet", rollouts: "/rollouts", rollout: new URL(rollout).pathname, halted: "/rollouts/r-2026-0117", complete: "/rollouts/r-2026-0116", content: "/content", consent: "/consent", findings: "/findings", record: "/record" };
  for (const [size, viewport] of Object.entries({ wide, narrow })) {
    for (const colorScheme of ["light", "dark"]) {
      const p = await open({ viewport, colorScheme, deviceScaleFactor: size === "wide" ? 1 : 2 });
      await p.goto("/sign-in");
      await p.screenshot({ path: join(shots, `sign-in-${size}-${colorScheme}.png`) });
      await signIn(p, "olga");
      const extra = {};
      await p.goto("/content");
      extra.bundle = await p.locator("#bundles tr", { hasText: "refused" }).locator("a.strong").getAttribute("href");
      await p.goto("/findings");
      extra.finding = await p.locator("#findings tbody tr:nth-child(2) a.strong").getAttribute("href");
      await p.goto("/fleet?state=putback");
      extra.host = await p.locator("#hosts a.strong").first().getAttribute("href");
      extra.halt = `${pages.rollout}/halt`;
      extra.account = "/account";
      for (const [name, path] of Object.entries({ ...pages, ...extra })) {
        await p.goto(path);
        await p.waitForTimeout(150);
        await p.screenshot({ path: join(shots, `${name}-${size}-${colorScheme}.png`), fullPage: name !== "fleet" && name !== "findings" });
      }
      await p.context().close();
    }
  }
}
