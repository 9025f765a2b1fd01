/**
 * The elements of `{% load realtime_runs %}`, kept up to date in place: run-status, run-progress, run-stream,
 * batch-progress, run-cancel. What the server has rendered stays as it is until something changes, and for good where
 * the reader may not follow. Elements of one run share one subscription.
 *
 * Each dispatches `run-change` and, once, `run-end` (both bubble; `detail` is the run). `data-state` is "live",
 * "disconnected" (for some seconds: what is shown may be old), "over" or "refused".
 */

import { onConnectionChange, readStream, subscribeToBatch, subscribeToRun } from "./client.js";

/** @typedef {Record<string, any>} Run the run object of the HTTP API */

const FINAL = new Set(["COMPLETED", "CANCELED", "FAILED", "CRASHED", "SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT"]);
const WITHOUT_FAILURE = new Set(["COMPLETED", "CANCELED"]);
const LINGER = 1000; // ms that a subscription outlives its last element: fragments of pages are replaced by new ones
const DISCONNECTED_AFTER = 5000; // ms
const MOST_CHARACTERS = 256 * 1024; // of a stream on the page
const NODE_CHARACTERS = 4096;
const NEAR_END = 24; // px

// -- words, as the server says them -----------------------------------------------------------------------------------

/** @param {string} status */
export const label = (status) =>
  status.toLowerCase().replace(/_/g, " ").replace(/\b[a-z]/g, (letter) => letter.toUpperCase());

const number = (value) => (typeof value === "number" && Math.abs(value) < 1e15 ? value : null);
const amount = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 10 });
const count = (value) => value.toLocaleString("en-US");
const clamp = (value) => Math.min(Math.max(value, 0), 100);

/**
 * How far a run is by its metadata; null when it does not say so in a form that is understood.
 * @param {Record<string, any>} metadata
 * @returns {{percentage: number, text: string} | null}
 */
export function readProgress(metadata) {
  const progress = metadata.progress;
  if (progress !== null && typeof progress === "object" && !Array.isArray(progress)) {
    const [current, total] = [number(progress.current), number(progress.total)];
    const percentage = number(progress.percentage);
    if (current === null || total === null || total <= 0) {
      return percentage === null ? null : { percentage: clamp(percentage), text: "" };
    }
    return {
      percentage: clamp(percentage ?? (100 * current) / total),
      text: `${amount(current)} of ${amount(total)}`,
    };
  }
  const value = number(progress);
  return value === null ? null : { percentage: clamp(value > 1 ? value : 100 * value), text: "" };
}

/** What a run says about itself. @param {Record<string, any>} metadata */
export function readNote(metadata) {
  const note = "status" in metadata ? metadata.status : metadata.progress?.currentItem;
  if (typeof note !== "string") return "";
  return note.length > 200 ? `${note.slice(0, 199)}…` : note;
}

// -- what elements of one run share -----------------------------------------------------------------------------------

/** @type {Map<string, Watch>} */
const watches = new Map();

class Watch {
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
    } catch {
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
  const elements = document.querySelectorAll(`:is(${Object.keys(ELEMENTS).join()})[data-state="${before}"]`);
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

// -- elements ---------------------------------------------------------------------------------------------------------

class LiveElement extends HTMLElement {
  /** The part of this name, made where the server has rendered none. @param {string} name @param {string} tag */
  part(name, tag = "span", parent = this) {
    let found = this.querySelector(`[part="${name}"]`);
    if (!found) {
      this.querySelector('[part="missing"]')?.remove();
      found = document.createElement(tag);
      found.setAttribute("part", name);
      if (parent.childNodes.length) parent.append(" ");
      parent.append(found);
    }
    return found;
  }

  /** @param {string} name @param {string} text */
  write(name, text, parent = this) {
    const node = this.part(name, "span", parent);
    if (node.textContent !== text) node.textContent = text;
  }

  /** @param {number | null} value @param {number} max @param {string} spoken */
  moveBar(value, max, spoken) {
    const bar = this.part("bar", "progress");
    bar.max = max;
    if (value === null) bar.removeAttribute("value");
    else bar.value = value;
    if (spoken) bar.setAttribute("aria-valuetext", spoken);
    return bar;
  }
}

class RunElement extends LiveElement {
  connectedCallback() {
    const id = this.getAttribute("run");
    if (!id || "missing" in this.dataset || FINAL.has(this.dataset.status)) return;
    this.watch = Watch.of(id);
    this.watch.add(this);
  }

  disconnectedCallback() {
    this.watch?.remove(this);
  }

  /** @param {Run} run */
  take(run) {
    if (run.v <= Number(this.dataset.version ?? 0)) return; // the server knew more when it rendered this
    const wasOver = FINAL.has(this.dataset.status);
    this.dataset.version = run.v;
    this.dataset.status = run.status;
    this.show(run);
    this.dispatchEvent(new CustomEvent("run-change", { bubbles: true, detail: run }));
    if (run.isCompleted && !wasOver) {
      this.dispatchEvent(new CustomEvent("run-end", { bubbles: true, detail: run }));
    }
  }

  /** @param {Run} _run */
  show(_run) {}
}

class RunStatus extends RunElement {
  show(run) {
    this.write("label", label(run.status));
  }
}

class RunProgress extends RunElement {
  show(run) {
    const metadata = run.metadata ?? {};
    const progress = readProgress(metadata);
    const percentage = progress ? `${Math.floor(progress.percentage)}%` : "";
    const texts = [percentage, progress?.text ?? "", readNote(metadata)];
    const isBusy = run.startedAt && !run.isCompleted;
    const value = progress ? progress.percentage : isBusy ? null : run.isSuccess ? 100 : 0;
    const bar = this.moveBar(value, 100, texts.filter(Boolean).join(", "));
    if (!bar.hasAttribute("aria-label")) bar.setAttribute("aria-label", `Progress of ${run.taskIdentifier}`);
    const line = this.part("text");
    ["percentage", "amount", "note"].forEach((name, place) => this.write(name, texts[place], line));
  }
}

class RunCancel extends RunElement {
  connectedCallback() {
    super.connectedCallback();
    this.addEventListener("submit", this);
  }

  /** @param {SubmitEvent} event */
  async handleEvent(event) {
    const form = /** @type {HTMLFormElement} */ (event.target);
    const button = form.querySelector("button");
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // `disabled` would take the focus away
    this.querySelector('[part="problem"]')?.remove();
    try {
      const headers = { Accept: "application/json" };
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers });
      if (!answer.ok) throw new Error(`The run was not canceled (${answer.status}).`);
      // Who may cancel a run need not be one who may follow it.
      const { status } = await answer.json().catch(() => ({}));
      if (FINAL.has(status)) this.show({ status, isCompleted: true });
    } catch (error) {
      button.removeAttribute("aria-disabled");
      const problem = this.part("problem");
      problem.role = "alert";
      problem.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    }
  }

  show(run) {
    if (!run.isCompleted || !this.querySelector("form")) return;
    const hadFocus = this.contains(document.activeElement);
    this.replaceChildren();
    this.hidden = !hadFocus;
    if (hadFocus) {
      // Who works with the keyboard stays where they are, and hears what became of it.
      const done = this.part("done");
      done.textContent = label(run.status);
      done.tabIndex = -1;
      done.focus();
    }
  }
}

class RunStream extends LiveElement {
  connectedCallback() {
    const id = this.getAttribute("run");
    if (!id || "missing" in this.dataset || "end" in this.dataset) return;
    this.text = this.part("text", "pre");
    if (!this.text.role) Object.assign(this.text, { role: "log", ariaLive: "polite", tabIndex: 0 });
    if (!this.text.ariaLabel) this.text.ariaLabel = this.getAttribute("key") || "default";
    this.follows = true;
    this.text.addEventListener("scroll", this);
    this.scrollDown();
    this.stop = new AbortController();
    this.read(id, this.stop.signal);
  }

  disconnectedCallback() {
    this.stop?.abort();
    this.text?.removeEventListener("scroll", this);
  }

  /** Goes on behind `data-next-index`, also when the element comes back later. */
  async read(id, signal) {
    const startIndex = Number(this.dataset.nextIndex ?? 0);
    const chunks = readStream(id, this.getAttribute("key") || "default", { startIndex, signal });
    try {
      for await (const chunk of chunks) {
        if (signal.aborted) return;
        this.add(chunk);
        this.dataset.nextIndex = chunks.nextIndex;
        this.dataset.state = "live";
      }
      if (signal.aborted) return;
      this.dataset.end = chunks.endReason ?? "closed";
      this.dataset.state = "over";
    } catch {
      if (!signal.aborted) this.dataset.state = "refused";
    }
  }

  /** @param {any} chunk */
  add(chunk) {
    const last = this.text.lastChild;
    const atLineStart = !last || last.data.endsWith("\n");
    const text = typeof chunk === "string" ? chunk.replace(/\r\n?/g, "\n") : `${atLineStart ? "" : "\n"}${JSON.stringify(chunk)}\n`;
    if (last && last.length + text.length <= NODE_CHARACTERS) last.appendData(text);
    else if (text) this.text.append(text);
    this.length = (this.length ?? this.text.textContent.length - text.length) + text.length;
    while (this.length > MOST_CHARACTERS && this.text.childNodes.length > 1) {
      this.length -= this.text.firstChild.length;
      this.text.firstChild.remove();
      this.top = 0; // what is there moves up, and nobody has scrolled
      this.querySelector('[part="omitted"]')?.removeAttribute("hidden");
    }
    this.scrollDown();
  }

  scrollDown() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (this.follows) this.text.scrollTop = this.text.scrollHeight;
    });
  }

  /** Stay at the end, unless the reader scrolls up; until they come back to it. */
  handleEvent() {
    const { scrollTop, scrollHeight, clientHeight } = this.text;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) this.follows = true;
    else if (scrollTop < this.top) this.follows = false;
    this.top = scrollTop;
  }
}

class BatchProgress extends LiveElement {
  connectedCallback() {
    const id = this.getAttribute("batch");
    if (!id || "missing" in this.dataset || "end" in this.dataset) return;
    this.stop = new AbortController();
    this.read(id, this.stop.signal);
  }

  disconnectedCallback() {
    this.stop?.abort();
  }

  async read(id, signal) {
    const ends = new Map();
    try {
      for await (const run of subscribeToBatch(id, { signal })) {
        if (signal.aborted) return;
        this.dataset.state = "live";
        if (!run.isCompleted || ends.has(run.id)) continue;
        ends.set(run.id, run.status);
        if (!this.show([...ends.values()])) continue;
        this.dataset.state = "over";
        return;
      }
    } catch {
      if (!signal.aborted) this.dataset.state = "refused";
    }
  }

  /** @param {string[]} ends of the runs that are over @returns {boolean} whether all are */
  show(ends) {
    const total = Number(this.dataset.total ?? 0);
    const canceled = ends.filter((status) => status === "CANCELED").length;
    const failed = ends.filter((status) => !WITHOUT_FAILURE.has(status)).length;
    const texts = [
      `${count(ends.length)} of ${count(total)} finished`,
      failed ? `${count(failed)} failed` : "",
      canceled ? `${count(canceled)} canceled` : "",
    ];
    // While the first list comes in, the server knew of more.
    if (ends.length < this.part("bar", "progress").value) return false;
    this.moveBar(ends.length, Math.max(total, 1), texts.filter(Boolean).join(", "));
    const line = this.part("text");
    ["finished", "failed", "canceled"].forEach((name, place) => this.write(name, texts[place], line));
    if (ends.length < total) return false;
    this.dataset.end = "";
    return true;
  }
}

const ELEMENTS = {
  "run-status": RunStatus,
  "run-progress": RunProgress,
  "run-stream": RunStream,
  "run-cancel": RunCancel,
  "batch-progress": BatchProgress,
};
for (const [name, element] of Object.entries(ELEMENTS)) {
  if (!customElements.get(name)) customElements.define(name, element);
}
