// A board of all runs of a tag: the server has rendered it, and each change moves a card.
// Everything that comes from a run is set as text, never as HTML.

import { subscribeToRunsWithTag } from "../realtime_runs/client.js";

const board = document.querySelector("[data-tag]");
const template = document.querySelector("template").content.firstElementChild;
const news = document.querySelector("[data-news]");
const oldest = Date.parse(board.dataset.from) || 0; // a page does not show all that there ever was
const columns = [...board.querySelectorAll("[data-statuses]")];

const label = (status) => status[0] + status.slice(1).toLowerCase().replaceAll("_", " ");
const columnOf = (status) => columns.find((column) => column.dataset.statuses.split(" ").includes(status));

function cardOf(run) {
  const found = board.querySelector(`[data-run="${CSS.escape(run.id)}"]`);
  if (found || Date.parse(run.createdAt) < oldest) return found;
  const card = template.cloneNode(true);
  card.dataset.run = run.id;
  const link = card.querySelector("a");
  link.href = `/runs/${run.id}`;
  link.textContent = run.taskIdentifier;
  return card;
}

function show(run) {
  const card = cardOf(run);
  if (!card || run.v <= Number(card.dataset.version)) return; // the page was newer
  card.dataset.version = run.v;
  card.querySelector("[data-status]").textContent = label(run.status);
  const percentage = run.metadata.progress?.percentage;
  const bar = card.querySelector("progress");
  bar.hidden = typeof percentage !== "number";
  bar.value = percentage ?? 0;
  const column = columnOf(run.status);
  if (card.closest("[data-statuses]") === column) return;
  column.querySelector("ul").prepend(card);
  news.textContent = `${run.taskIdentifier}: ${label(run.status)}`;
  for (const { children } of columns) {
    children[0].querySelector("[data-count]").textContent = children[1].childElementCount;
  }
}

for await (const run of subscribeToRunsWithTag(board.dataset.tag)) show(run);
