/**
 * The elements of `{% load realtime_runs %}`, kept up to date in place: run-status, run-progress, run-stream,
 * batch-progress, run-cancel. What the server has rendered stays as it is until something changes, and for good where
 * the reader may not follow. Elements of one run share one subscription.
 *
 * Each dispatches `run-change` and, once, `run-end` (both bubble; `detail` is the run). `data-state` is "live",
 * "disconnected" (for some seconds: what is shown may be old), "over" or "refused".
 */

import { readStream, subscribeToBatch } from "./client.js";
import { Watch } from "./watching.js";
import { FINAL, count, label, readNote, readProgress } from "./words.js";

/** @typedef {Record<string, any>} Run the run object of the HTTP API */

const WITHOUT_FAILURE = new Set(["COMPLETED", "CANCELED"]);
const MOST_CHARACTERS = 256 * 1024; // of a stream on the page
const NODE_CHARACTERS = 4096;
const NEAR_END = 24; // px

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
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "closed") return this.read(id, signal); // the page has configured the client meanwhile
      this.dataset.state = "refused";
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
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "closed") return this.read(id, signal); // the page has configured the client meanwhile
      this.dataset.state = "refused";
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

function define() {
  for (const [name, element] of Object.entries(ELEMENTS)) {
    if (!customElements.get(name)) customElements.define(name, element);
  }
}

// After the page's own scripts: none of their listeners may miss the end of a run that is over at once.
if (document.readyState === "complete") define();
document.addEventListener("DOMContentLoaded", define, { once: true });
addEventListener("load", define, { once: true }); // for who imports this between the two
