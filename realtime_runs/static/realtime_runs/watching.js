/** What elements of one run share: its subscription, the state of the connection, and one voice for screen readers. */

import { onConnectionChange, subscribeToRun } from "./client.js";
import { label } from "./words.js";

/** @typedef {Record<string, any>} Run the run object of the HTTP API */
/** @typedef {HTMLElement & {take: (run: Run) => void}} RunElement */

const LINGER = 1000; // ms that a subscription outlives its last element: fragments of pages are replaced by new ones
const DISCONNECTED_AFTER = 5000; // ms

/** @type {Map<string, Watch>} */
const watches = new Map();

export class Watch {
  /** @type {Set<RunElement>} */
  elements = new Set();
  /** @type {Run | null} */
  run = null;
  state = "";
  status = "";
  stop = new AbortController();

  /** @param {string} id */
  static of(id) {
    if (!watches.has(id)) watches.set(id, new Watch(id));
    return watches.get(id);
  }

  /** @param {string} id */
  constructor(id) {
    this.id = id;
    this.follow();
  }

  /** @param {RunElement} element */
  add(element) {
    this.elements.add(element);
    this.status ||= element.dataset.status ?? "";
    if (this.run) element.take(this.run);
    if (this.state) element.dataset.state = this.state;
  }

  /** @param {RunElement} element */
  remove(element) {
    this.elements.delete(element);
    setTimeout(() => {
      if (this.elements.size || watches.get(this.id) !== this) return;
      watches.delete(this.id);
      this.stop.abort();
    }, LINGER);
  }

  async follow() {
    try {
      for await (const run of subscribeToRun(this.id, { signal: this.stop.signal })) this.take(run);
      this.say("over");
    } catch (error) {
      if (error.code === "closed") return this.follow(); // the page has configured the client meanwhile
      this.say("refused"); // what the server has rendered stays
    }
  }

  /** @param {Run} run */
  take(run) {
    this.run = run;
    this.say("live");
    const isNews = this.status && this.status !== run.status;
    this.status = run.status;
    for (const element of [...this.elements]) element.take(run);
    if (isNews && [...this.elements].some((one) => !one.closest("[data-realtime-runs-quiet]"))) {
      announce(`${run.taskIdentifier}: ${label(run.status)}`);
    }
  }

  /** @param {string} state */
  say(state) {
    this.state = state;
    for (const element of this.elements) element.dataset.state = state;
  }
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let lost;

/** @param {string} before @param {string} after */
function restate(before, after) {
  const elements = document.querySelectorAll(`:is([run], [batch])[data-state="${before}"]`);
  for (const element of elements) element.setAttribute("data-state", after);
}

onConnectionChange((isConnected) => {
  if (isConnected) {
    clearTimeout(lost);
    lost = undefined;
    restate("disconnected", "live");
  } else {
    lost ??= setTimeout(() => restate("live", "disconnected"), DISCONNECTED_AFTER);
  }
});

/** One region for all elements: many of them would speak at the same time. */
const announcer = document.createElement("div");
announcer.className = "realtime-runs-announcer";
announcer.role = "status";
/** @type {string[]} */
let news = [];

/** @param {string} text */
function announce(text) {
  if (!announcer.isConnected) document.body.append(announcer);
  if (!news.length) {
    setTimeout(() => {
      announcer.textContent = news.slice(-5).join(". ");
      news = [];
    }, 200);
  }
  news.push(text);
}
