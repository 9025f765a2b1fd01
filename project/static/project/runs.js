// Keeps the runs on the page up to date: asks for all live ones in one request, and stops when none is left.
// Everything that comes from a run is set as text, never as HTML.

const POLL_MS = 500;
const RETRY_MS = 3000;
const AGO_MS = 10_000;

const root = document.querySelector("[data-updates]");
const notice = document.querySelector("[data-notice]");
const announcement = document.querySelector("[data-announce]");

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

function moment(text) {
  return new Date(text.replace(" ", "T"));
}

function ago(date) {
  const seconds = Math.min(0, (date - Date.now()) / 1000);
  const [unit, size] = UNITS.find(([, size]) => -seconds >= size) ?? UNITS.at(-1);
  return relative.format(Math.ceil(seconds / size), unit);
}

function showTime(time) {
  const text = time.getAttribute("datetime");
  if (!text) return;
  time.title = exact.format(moment(text));
  time.textContent = time.hasAttribute("data-ago") ? ago(moment(text)) : time.title;
}

function showTimes() {
  document.querySelectorAll("time").forEach(showTime);
}

const within = (element, selector) => [...element.querySelectorAll(selector)];
const isThere = (value) => value !== null && value !== undefined && value !== false && value !== "";

function showRun(element, run) {
  element.toggleAttribute("data-live", run.isLive);
  for (const field of within(element, "[data-field]")) {
    const text = String(run[field.dataset.field] ?? "");
    if (field instanceof HTMLTimeElement) {
      field.setAttribute("datetime", text);
      showTime(field);
    } else if (field.textContent !== text) {
      field.textContent = text;
    }
  }
  for (const part of within(element, "[data-if]")) part.hidden = !isThere(run[part.dataset.if]);
  for (const bar of within(element, "progress")) bar.value = run.percentage ?? 0;
  const status = element.querySelector("[data-status]");
  if (status.dataset.status !== run.status) {
    status.dataset.status = run.status;
    if (!run.isLive) announcement.textContent = `${run.task}: ${run.statusLabel}`;
  }
}

function liveRuns() {
  const runs = within(root, "[data-run][data-live]");
  return root.matches("[data-run][data-live]") ? [root, ...runs] : runs;
}

function tell(problem) {
  notice.textContent = problem;
  notice.hidden = problem === "";
}

async function poll() {
  const elements = liveRuns();
  if (elements.length === 0) return;
  if (document.hidden) {
    document.addEventListener("visibilitychange", poll, { once: true });
    return;
  }
  try {
    const ids = new URLSearchParams(elements.map((element) => ["id", element.dataset.run]));
    const response = await fetch(`${root.dataset.updates}?${ids}`);
    if (!response.ok && response.status !== 404) throw new Error(`status ${response.status}`);
    const { runs } = response.ok ? await response.json() : { runs: [] };
    const byId = new Map(runs.map((run) => [run.id, run]));
    for (const element of elements) {
      const run = byId.get(element.dataset.run);
      if (run) showRun(element, run);
      else element.removeAttribute("data-live"); // it is gone, so nothing more will be heard of it
    }
    tell("");
    setTimeout(poll, POLL_MS);
  } catch {
    tell("The server does not answer. Trying again …");
    setTimeout(poll, RETRY_MS);
  }
}

showTimes();
setInterval(showTimes, AGO_MS);
if (root) poll();
