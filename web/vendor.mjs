// Copies what the console serves to browsers from node_modules into the
// directory that Go embeds (internal/edge/console/assets/vendor, not committed).
// Run by `make web`; the console works without it, only without live updates
// and its own typefaces.
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const web = dirname(fileURLToPath(import.meta.url));
const modules = join(web, "node_modules");
const target = join(web, "..", "internal", "edge", "console", "assets", "vendor");
const staging = `${target}.new`;

const files = {
  "htmx.js": "htmx.org/dist/htmx.min.js",
  "sse.js": "htmx-ext-sse/dist/sse.min.js",
  "morph.js": "idiomorph/dist/idiomorph-ext.min.js",
  "uplot.js": "uplot/dist/uPlot.iife.min.js",
  "uplot.css": "uplot/dist/uPlot.min.css",
  "sans.woff2": "@fontsource-variable/instrument-sans/files/instrument-sans-latin-wdth-normal.woff2",
  "sans-ext.woff2": "@fontsource-variable/instrument-sans/files/instrument-sans-latin-ext-wdth-normal.woff2",
  "mono.woff2": "@fontsource-variable/geist-mono/files/geist-mono-latin-wght-normal.woff2",
};

const fonts = `@font-face { font-family: "Instrument Sans Variable"; font-display: swap; font-weight: 400 700; font-stretch: 75% 100%; src: url(sans.woff2) format("woff2"); unicode-range: U+0000-00FF, U+0131, U+0152-0153, U+02BB-02BC, U+02C6, U+02DA, U+02DC, U+0304, U+0308, U+0329, U+2000-206F, U+20AC, U+2122, U+2191, U+2193, U+2212, U+2215, U+FEFF, U+FFFD; }
@font-face { font-family: "Instrument Sans Variable"; font-display: swap; font-weight: 400 700; font-stretch: 75% 100%; src: url(sans-ext.woff2) format("woff2"); unicode-range: U+0100-02BA, U+02BD-02C5, U+1E00-1E9F, U+20A0-20AB, U+20AD-20C0; }
@font-face { font-family: "Geist Mono Variable"; font-display: swap; font-weight: 100 900; src: url(mono.woff2) format("woff2"); }
`;

rmSync(staging, { recursive: true, force: true });
mkdirSync(staging, { recursive: true });
for (const [name, from] of Object.entries(files)) cpSync(join(modules, from), join(staging, name));
writeFileSync(join(staging, "fonts.css"), fonts);

// The licences travel with the files they cover, into the binary too.
const packages = ["htmx.org", "htmx-ext-sse", "idiomorph", "uplot", "@fontsource-variable/instrument-sans", "@fontsource-variable/geist-mono"];
const notice = packages.map((name) => {
  const { version } = JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8"));
  return `${name} ${version}\n\n${readFileSync(join(modules, name, "LICENSE"), "utf8")}`;
});
writeFileSync(join(staging, "LICENSES.txt"), notice.join(`\n${"-".repeat(72)}\n\n`));

rmSync(target, { recursive: true, force: true });
renameSync(staging, target);
