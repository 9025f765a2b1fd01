/** The list of runs: the elements change its rows, this its counters. New runs are told of, and do not move the rows. */

import { countDurations } from "./durations.js";
import { ask, repeat } from "./morph.js";

const counters = document.getElementById("rr-counters");
const news = document.getElementById("rr-new");

async function count() {
  const query = new URLSearchParams(location.search);
  for (const name of ["behind", "before"]) query.delete(name);
  query.set("counts", counters.dataset.newest);
  const response = await ask(`${counters.dataset.url}?${query}`);
  if (!response) return;
  const found = await response.json();
  for (const element of counters.querySelectorAll("[data-count]")) {
    const text = found[element.dataset.count];
    if (element.textContent !== text) element.textContent = text;
    if (element.dataset.count === "failed") element.classList.toggle("rr-bad", text !== "0");
  }
  const newer = found.newer ?? "0";
  const words = newer === "0" ? "" : `${newer} new ${newer === "1" ? "run" : "runs"}: show`;
  if (news.textContent !== words) news.textContent = words;
  news.hidden = !words;
}

countDurations();
repeat(count, Number(counters.dataset.every) || 3000);
