// Opens each report from the disk in Chromium, as people do: at the size of a desk and of phones, light and dark, and
// as it prints. Fails where the console says anything, a request is made, the page is wider than the screen, or axe-core
// finds something. Pictures of what was seen go to the folder of --pictures.
//
//   node check.mjs [--pictures FOLDER] report.html...

import { mkdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import axe from "axe-core";
import puppeteer from "puppeteer-core";

const screens = [
  { name: "desk", width: 1280, height: 800 },
  { name: "phone", width: 375, height: 812 },
  { name: "narrow", width: 320, height: 640 },
];
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

const files = process.argv.slice(2);
let pictures;
const at = files.indexOf("--pictures");
if (at >= 0) {
  [, pictures] = files.splice(at, 2);
  await mkdir(pictures, { recursive: true });
}
if (files.length === 0) {
  console.error("give one or more reports: node check.mjs report.html");
  process.exit(64);
}

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Only files of our own are opened, and containers have no sandbox to offer.
  args: ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"],
});
let wrong = 0;
const tell = (place, what) => {
  wrong += 1;
  console.log(`FAIL ${place}: ${what}`);
};

async function open(file, screen, scheme) {
  const page = await browser.newPage();
  const place = `${basename(file)} ${screen.name} ${scheme}`;
  const url = pathToFileURL(resolve(file)).href;
  page.on("console", (message) => tell(place, `console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => tell(place, `error: ${error.message}`));
  page.on("request", (request) => request.url() === url || tell(place, `asks for ${request.url()}`));
  await page.setViewport({ width: screen.width, height: screen.height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url, { waitUntil: "load" });
  return { page, place };
}

async function look(file, screen, scheme) {
  const { page, place } = await open(file, screen, scheme);
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  if (wide > room) {
    tell(place, `the page is ${wide} pixels wide and the screen ${room}`);
  }
  const cut = await page.evaluate(() => {
    const out = ({ left, right }) => left < 0 || right > window.innerWidth;
    return [...document.querySelectorAll("svg text")].filter((text) => out(text.getBoundingClientRect())).map((text) => text.textContent);
  });
  cut.forEach((text) => tell(place, `a picture's text is cut: ${text}`));
  // Whatever is folded away is looked at too.
  await page.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
  await page.evaluate(axe.source);
  const found = await page.evaluate((tags) => axe.run(document, { runOnly: tags, resultTypes: ["violations"] }), rules);
  for (const one of found.violations) {
    for (const node of one.nodes) {
      tell(place, `${one.impact} ${one.id}: ${one.help}; ${node.target.join(" ")}`);
    }
  }
  if (pictures) {
    const name = `${basename(file, ".html")}-${screen.name}-${scheme}.png`;
    await page.screenshot({ path: join(pictures, name), fullPage: true });
  }
  await page.close();
}

async function print(file) {
  // As wide as a page of A4 between its margins.
  const { page, place } = await open(file, { name: "print", width: 700, height: 1000 }, "dark");
  await page.emulateMediaType("print");
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  if (wide > room) {
    tell(place, `the page is ${wide} pixels wide and the paper ${room}`);
  }
  if (pictures) {
    const margin = { top: "15mm", bottom: "15mm", left: "12mm", right: "12mm" };
    await page.pdf({ path: join(pictures, `${basename(file, ".html")}.pdf`), format: "A4", margin });
  }
  await page.close();
}

try {
  for (const file of files) {
    for (const screen of screens) {
      for (const scheme of ["light", "dark"]) {
        await look(file, screen, scheme);
      }
    }
    await print(file);
    console.log(`looked at ${file}`);
  }
} finally {
  await browser.close();
}
console.log(wrong === 0 ? "nothing found" : `${wrong} found`);
process.exit(wrong === 0 ? 0 : 1);
