/**
 * Follow runs and read streams in a page: async iterators over one WebSocket, or over Server-Sent Events where a proxy
 * lets no WebSocket through. Cut off, it comes back by itself and goes on where it was: nothing is lost, nothing doubled.
 *
 *     for await (const run of subscribeToRun(id)) bar.value = run.metadata.progress ?? 0;
 */

/** @typedef {Record<string, any>} Run the run object of the HTTP API */
/** @typedef {{base?: string, accessToken?: string, refreshAccessToken?: () => Promise<string>}} Options */
/** @typedef {{signal?: AbortSignal, since?: number | string}} SubscribeOptions */

const PROTOCOL = "realtime-runs.v1";
const SHORTEST = 500; // ms until the first attempt to come back, at most
const LONGEST = 30_000;
const LINGER = 5_000; // ms that the socket stays open without a subscription
const RENEW = 30_000; // ms before a token expires
const WINDOW = 512; // chunks under way to a loop that is slow
const MOST_RUNS = 10_000; // whose fields are kept
const LARGEST_SEND = 48 * 1024; // characters; what is more goes over HTTP
const SOCKET_AGAIN = 60_000; // ms

/** What went wrong for good. `code`: "forbidden", "not_found", "unauthorized", …; `retry`: it may work later. */
export class RealtimeError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message, retry = false) {
    super(message);
    this.name = "RealtimeError";
    this.code = code;
    this.retry = retry;
  }
}

// A page may have loaded this file twice, under its plain and under its hashed name. They share one socket.
/** @type {{options: Options | null, connection: Connection | null, listeners: Set<(isConnected: boolean) => void>}} */
const page = (/** @type {any} */ (globalThis)[Symbol.for("realtime_runs")] ??= {
  options: null,
  connection: null,
  listeners: new Set(),
});

/**
 * `base`: the path or address below which the app is included, "/" by default. `accessToken`: a public token; without
 * one the session of the user counts. `refreshAccessToken` gives a new one before it expires.
 * What is not given comes from `<meta name="realtime-runs">`, which `{% realtime_runs_js %}` writes.
 * @param {Options} options
 */
export function configure(options) {
  page.options = { ...defaults(), ...options };
  page.connection?.leave();
  page.connection = null;
}

/** @returns {Options} */
function defaults() {
  const meta = document.querySelector('meta[name="realtime-runs"]');
  const { base = "/", token, refresh, csrf } = meta instanceof HTMLElement ? meta.dataset : {};
  /** @type {Options} */
  const options = { base, accessToken: token };
  if (refresh) {
    options.refreshAccessToken = async () => {
      /** @type {Record<string, string>} */
      const headers = csrf ? { "X-CSRFToken": csrf } : {};
      const answer = await fetch(refresh, { method: "POST", headers, credentials: "same-origin" });
      if (!answer.ok) throw new RealtimeError("unauthorized", "No new token was given.", answer.status >= 500);
      return (await answer.json()).token;
    };
  }
  return options;
}

const connection = () => (page.connection ??= new Connection((page.options ??= defaults())));

/** One run, until it is over. @param {string} id @param {SubscribeOptions} [options] @returns {AsyncIterable<Run>} */
export const subscribeToRun = (id, options) => new Runs({ run: id }, `runs/${path(id)}`, options);

/** Each change of the runs with this tag, or with all of these. @param {string | string[]} tag @param {SubscribeOptions} [options] */
export const subscribeToRunsWithTag = (tag, options) =>
  new Runs({ tag }, `runs?tags=${[tag].flat().map(encodeURIComponent).join(",")}`, options);

/** Each change of the runs of a batch. @param {string} id @param {SubscribeOptions} [options] */
export const subscribeToBatch = (id, options) => new Runs({ batch: id }, `batches/${path(id)}`, options);

/**
 * The chunks of a stream, each once and in order, until it is closed; then `endReason` says why. `nextIndex`: of the
 * chunk that would come next.
 * @param {string} run @param {{startIndex?: number, signal?: AbortSignal}} [options]
 */
export const readStream = (run, key = "default", options = {}) => new Chunks(run, key, options);

/** Send to an input stream of a run. @param {string} run @param {string} input @param {any} data @returns {Promise<void>} */
export const sendInput = (run, input, data) => connection().sendInput(run, input, data);

/** Tells whether the server is reached, at each change. @param {(isConnected: boolean) => void} listener @returns {() => void} stops it */
export function onConnectionChange(listener) {
  page.listeners.add(listener);
  return () => page.listeners.delete(listener);
}

const path = encodeURIComponent;

// -- what a loop reads ------------------------------------------------------------------------------------------------

/** What is followed, and where its reader is. Only one loop reads it. */
class Subscription {
  id = 0; // on the socket of now; another one on the next
  failures = 0;
  /** @type {RealtimeError | null} */
  error = null;
  isOver = false;
  isOpen = false;
  wake = () => {};
  /** Of the events that are read for it. @type {AbortController | undefined} */
  stop = undefined;

  /** @param {object} to @param {string} url @param {{signal?: AbortSignal}} [options] */
  constructor(to, url, options = {}) {
    this.to = to;
    this.url = url;
    this.signal = options.signal;
    /** @type {number | string | undefined} */
    this.since = undefined;
  }

  get request() {
    return { type: "subscribe", id: this.id, to: this.to, since: this.since };
  }

  /** @returns {{value: any} | undefined} */
  next() {
    return undefined;
  }

  /** @param {any} frame */
  take(frame) {
    this.failures = 0;
    if (frame.type === "end" && frame.reason === "gone") {
      this.error = new RealtimeError("gone", "It is not kept any more.");
    } else if (frame.type === "end") {
      this.isOver = true;
    } else {
      this.accept(frame);
      if (frame.at !== undefined) this.since = frame.at;
    }
    this.wake();
  }

  /** @param {any} _frame */
  accept(_frame) {}

  /** @param {RealtimeError} error */
  fail(error) {
    this.error = error;
    this.wake();
  }

  async *[Symbol.asyncIterator]() {
    if (this.isOpen) throw new RealtimeError("busy", "Another loop reads this already.");
    if (this.signal?.aborted) return;
    const via = connection();
    const abort = () => this.wake();
    this.isOpen = true;
    this.signal?.addEventListener("abort", abort);
    via.add(this);
    try {
      while (!this.signal?.aborted) {
        const found = this.next();
        if (found) yield found.value;
        else if (this.error) throw this.error;
        else if (this.isOver) return;
        else await new Promise((wake) => (this.wake = () => wake(undefined)));
      }
    } finally {
      this.signal?.removeEventListener("abort", abort);
      via.remove(this);
      this.isOpen = false;
    }
  }
}

class Runs extends Subscription {
  /** @type {Map<string, Run>} */
  held = new Map();
  /** @type {Set<string>} */
  changed = new Set(); // newest state wins: a slow loop skips versions

  /** @param {object} to @param {string} url @param {SubscribeOptions} [options] */
  constructor(to, url, options) {
    super(to, url, options);
    this.since = options?.since;
  }

  /** @param {any} frame */
  accept(frame) {
    if (frame.reset) this.held.clear();
    for (const { run: id, from, v, set } of frame.runs) {
      const old = this.held.get(id);
      if (old && v <= old.v) continue;
      const run = from ? { ...old, ...set } : set;
      for (const name in set) if (from && set[name] === null) delete run[name];
      run.v = v;
      this.held.delete(id);
      this.held.set(id, run);
      this.changed.delete(id);
      this.changed.add(id);
    }
    for (const id of this.held.keys()) {
      if (this.held.size <= MOST_RUNS) break;
      if (!this.changed.has(id)) this.held.delete(id);
    }
  }

  next() {
    for (const id of this.changed) {
      this.changed.delete(id);
      return { value: { ...this.held.get(id) } };
    }
  }

  /** @param {string} name @param {string} data @param {string} id */
  takeEvent(name, data, id) {
    const at = /^\d{1,15}$/.test(id) ? Number(id) : id || undefined;
    const frame = { type: name, at, ...JSON.parse(data) };
    if (name === "error" || frame.reason === "auth") throw new Error(data); // come back, with another token if it must be
    this.take(frame);
  }

  get lastEventId() {
    return this.since === undefined ? "" : String(this.since);
  }
}

class Chunks extends Subscription {
  /** @type {any[]} */
  waiting = [];
  /** Why the stream ended: "closed", or how its run did. @type {string | undefined} */
  endReason = undefined;

  /** @param {string} run @param {string} key @param {{startIndex?: number, signal?: AbortSignal}} options */
  constructor(run, key, options) {
    super({ stream: { run, key } }, `streams/${path(run)}/${key.split("/").map(path).join("/")}`, options);
    this.since = this.nextIndex = this.acked = options.startIndex ?? 0;
  }

  get request() {
    this.waiting = []; // sent again: what waits in the page is no more than one window
    this.since = this.acked = this.nextIndex;
    return { ...super.request, window: WINDOW };
  }

  /** @param {any} frame */
  take(frame) {
    if (frame.type === "end") this.endReason = frame.reason;
    super.take(frame);
  }

  /** @param {any} frame */
  accept(frame) {
    const first = frame.at - frame.chunks.length;
    frame.chunks.forEach((/** @type {any} */ chunk, /** @type {number} */ place) => {
      if (first + place >= Number(this.since)) this.waiting.push([first + place, chunk]);
    });
  }

  next() {
    const found = this.waiting.shift();
    if (!found) return undefined;
    this.nextIndex = found[0] + 1;
    if (this.nextIndex - this.acked >= WINDOW / 2) {
      this.acked = this.nextIndex;
      connection().tell({ type: "ack", id: this.id, at: this.acked });
    }
    return { value: found[1] };
  }

  /** @param {string} name @param {string} data */
  takeEvent(name, data) {
    if (name === "batch") {
      for (const { seq_num, body } of JSON.parse(data).records) {
        this.take({ type: "chunks", at: seq_num + 1, chunks: [JSON.parse(body).data] });
      }
    } else if (name === "end") {
      this.take({ type: "end", ...JSON.parse(data) });
    } else if (name === "error") {
      throw new Error(data);
    }
  }

  get lastEventId() {
    this.waiting = [];
    this.since = this.nextIndex;
    return Number(this.since) > 0 ? String(Number(this.since) - 1) : "";
  }
}

// -- how it comes -----------------------------------------------------------------------------------------------------

class Connection {
  /** @type {Set<Subscription>} */
  subscriptions = new Set();
  /** @type {Map<number, Subscription>} */
  byId = new Map();
  /** @type {Map<number, {resolve: (value?: any) => void, reject: (error: Error) => void}>} */
  sends = new Map();
  /** @type {WebSocket | null} */
  socket = null;
  isOpening = false;
  isReady = false;
  wasReady = false;
  failures = 0; // in a row
  lastId = 0;
  ping = 25_000; // ms
  /** @type {Record<string, any>} of timers by what they are for */
  timers = {};
  /** Whether events are read instead, which stops with it. @type {AbortController | null} */
  events = null;
  isRefused = false; // the token, which is asked for anew once

  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.token = options.accessToken;
    const again = () => document.visibilityState !== "hidden" && this.hurry();
    this.again = again;
    for (const name of ["online", "pageshow"]) addEventListener(name, again);
    document.addEventListener("visibilitychange", again);
    this.renewInTime();
  }

  leave() {
    for (const name of ["online", "pageshow"]) removeEventListener(name, this.again);
    document.removeEventListener("visibilitychange", this.again);
    for (const name in this.timers) clearTimeout(this.timers[name]);
    this.failAll(new RealtimeError("closed", "The connection was configured anew."));
    this.events?.abort();
    this.close();
  }

  /** @param {string} name @param {() => void} act @param {number} ms */
  after(name, ms, act) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(act, Math.min(ms, 2 ** 31 - 1));
  }

  /** @param {string} path */
  url(path) {
    return new URL(`${(this.options.base ?? "/").replace(/\/*$/, "/")}realtime/v1/${path}`, document.baseURI);
  }

  /** @param {Subscription} subscription */
  add(subscription) {
    clearTimeout(this.timers.linger);
    this.subscriptions.add(subscription);
    if (this.isReady) this.subscribe(subscription);
    else if (this.events) this.readEvents(subscription, this.events.signal);
    else this.open();
  }

  /** @param {Subscription} subscription */
  remove(subscription) {
    this.subscriptions.delete(subscription);
    subscription.stop?.abort();
    if (this.byId.delete(subscription.id)) this.tell({ type: "unsubscribe", id: subscription.id });
    if (!this.subscriptions.size) this.after("linger", LINGER, () => this.close());
  }

  // -- the socket

  async open() {
    if (this.socket || this.timers.again || this.isOpening) return;
    this.isOpening = true;
    const mayOpen = !this.isRefused || (await this.renew());
    this.isOpening = false;
    if (!mayOpen) return;
    const url = this.url("socket");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, this.token ? [PROTOCOL, `bearer.${this.token}`] : [PROTOCOL]);
    this.socket = socket;
    this.isReady = false;
    this.heard();
    socket.onmessage = ({ data }) => socket === this.socket && this.take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
  }

  close() {
    const socket = this.socket;
    this.forget();
    socket?.close(1000);
  }

  forget() {
    this.socket = null;
    this.isReady = false;
    this.byId.clear();
    clearTimeout(this.timers.silence);
    const lost = new RealtimeError("disconnected", "The connection broke; whether it was sent is not known.", true);
    for (const { reject } of this.sends.values()) reject(lost);
    this.sends.clear();
  }

  /** A connection that is dead says nothing: not even a ping. */
  heard() {
    this.after("silence", 2 * this.ping, () => {
      const socket = this.socket;
      this.lost(1006, "");
      socket?.close();
    });
  }

  /** @param {object} frame */
  tell(frame) {
    if (this.isReady) this.socket?.send(JSON.stringify(frame));
  }

  /** @param {Subscription} subscription */
  subscribe(subscription) {
    subscription.id = ++this.lastId;
    this.byId.set(subscription.id, subscription);
    this.tell(subscription.request);
  }

  /** @param {any} frame */
  take(frame) {
    this.heard();
    const subscription = this.byId.get(frame.id);
    switch (frame.type) {
      case "ready":
        this.ready(frame.ping * 1000);
        break;
      case "ping":
        this.tell({ type: "pong" });
        break;
      case "sent":
        this.sends.get(frame.id)?.resolve();
        this.sends.delete(frame.id);
        break;
      case "error":
        this.refused(frame, subscription);
        break;
      default:
        if (frame.type === "end") this.byId.delete(frame.id);
        subscription?.take(frame);
    }
  }

  /** @param {number} ping */
  ready(ping) {
    this.ping = ping || this.ping;
    this.isReady = this.wasReady = true;
    this.isRefused = false;
    this.lastId = 0;
    this.events?.abort();
    this.events = null;
    for (const subscription of this.subscriptions) this.subscribe(subscription);
    this.after("stable", 5000, () => (this.failures = 0));
    this.say(true);
  }

  /** @param {any} frame @param {Subscription | undefined} subscription */
  refused(frame, subscription) {
    const error = new RealtimeError(frame.code, frame.message, frame.retry);
    this.sends.get(frame.id)?.reject(error);
    this.sends.delete(frame.id);
    this.byId.delete(frame.id);
    if (!subscription) return;
    if (!error.retry) return subscription.fail(error);
    setTimeout(() => {
      if (this.isReady && this.subscriptions.has(subscription)) this.subscribe(subscription);
    }, delay(subscription.failures++));
  }

  /** @param {number} code @param {string} reason */
  lost(code, reason) {
    const wasReady = this.isReady;
    clearTimeout(this.timers.stable);
    this.forget();
    this.say(false);
    if (!this.subscriptions.size) return;
    if (code === 4401 && this.options.refreshAccessToken && !this.isRefused) {
      this.isRefused = true;
      this.open();
      return;
    }
    if (code >= 4400 && code < 4500 && code !== 4429) {
      this.failAll(new RealtimeError(code === 4401 ? "unauthorized" : code === 4403 ? "forbidden" : "protocol", reason || `Closed with ${code}.`));
      return;
    }
    const failures = this.failures++;
    // Where no socket ever opens, something on the way does not let it through.
    if (!wasReady && failures >= (this.wasReady ? 5 : 1) && !this.events) this.readAllEvents();
    const wait = this.events ? SOCKET_AGAIN : delay(code === 4429 ? Math.max(failures, 4) : failures);
    this.after("again", wait, () => this.hurry());
  }

  /** Come back now. */
  hurry() {
    if (!this.timers.again && !this.events) return;
    clearTimeout(this.timers.again);
    this.timers.again = undefined;
    if (this.subscriptions.size) this.open();
  }

  /** @param {RealtimeError} error */
  failAll(error) {
    for (const subscription of this.subscriptions) subscription.fail(error);
  }

  /** @param {boolean} isConnected */
  say(isConnected) {
    for (const listener of page.listeners) listener(isConnected);
  }

  // -- the token

  /** A new one before this expires, on the same socket. */
  renewInTime() {
    const expires = expiry(this.token);
    if (!expires || !this.options.refreshAccessToken) return;
    const left = expires - Date.now();
    this.after("renew", Math.max(left - Math.min(RENEW, left / 2), 1000), () => this.renew());
  }

  /** @returns {Promise<boolean>} */
  async renew() {
    try {
      this.token = await this.options.refreshAccessToken?.();
    } catch (error) {
      if (!this.isRefused) return false; // the old one is still good; when it is not, this is asked again
      if (error instanceof RealtimeError && !error.retry) this.failAll(error);
      else this.after("again", delay(this.failures++), () => this.hurry()); // who gives tokens cannot be reached
      return false;
    }
    this.tell({ type: "refresh", token: this.token });
    this.renewInTime();
    return true;
  }

  // -- Server-Sent Events, where no WebSocket comes through

  readAllEvents() {
    this.events = new AbortController();
    for (const subscription of this.subscriptions) this.readEvents(subscription, this.events.signal);
  }

  /** @param {Subscription} subscription @param {AbortSignal} signal */
  async readEvents(subscription, signal) {
    const stop = (subscription.stop = new AbortController());
    const isWanted = () => !signal.aborted && this.subscriptions.has(subscription) && !subscription.isOver && !subscription.error;
    const abort = () => stop.abort();
    signal.addEventListener("abort", abort);
    for (let failures = 0; isWanted(); failures++) {
      try {
        if (await this.readAnswer(subscription, stop.signal)) failures = 0;
      } catch (error) {
        if (!isWanted()) return;
        if (error instanceof RealtimeError && !error.retry) return subscription.fail(error);
        this.say(false);
      }
      if (isWanted()) await pause(delay(failures));
    }
  }

  /** @param {any} subscription @param {AbortSignal} signal @returns {Promise<boolean>} whether it brought something */
  async readAnswer(subscription, signal) {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (subscription.lastEventId) headers["Last-Event-ID"] = subscription.lastEventId;
    const answer = await fetch(this.url(subscription.url), { headers, credentials: "same-origin", cache: "no-store", signal });
    if (answer.status === 204) {
      subscription.take({ type: "end", reason: "completed" });
      return true;
    }
    if (answer.status === 401 && this.options.refreshAccessToken && !this.isRefused) {
      this.isRefused = true;
      return this.renew();
    }
    if (!answer.ok || !answer.body) throw refusal(answer.status);
    this.isRefused = false;
    this.say(true);
    let text = "";
    let found = false;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    while (true) {
      const { value, done } = await reader.read();
      if (done || !this.subscriptions.has(subscription)) {
        reader.cancel();
        return found;
      }
      text += value;
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) found = takeEvent(subscription, event) || found;
      while (subscription.waiting?.length > WINDOW && !signal.aborted) await pause(20); // its loop is slow
    }
  }

  /** @param {string} run @param {string} input @param {any} data */
  async sendInput(run, input, data) {
    const text = JSON.stringify(data);
    if (text === undefined) throw new RealtimeError("invalid", "What is sent must be JSON.");
    if (this.isReady && text.length < LARGEST_SEND) {
      const id = ++this.lastId;
      return new Promise((resolve, reject) => {
        this.sends.set(id, { resolve, reject });
        this.tell({ type: "send", id, run, input, data });
      });
    }
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    else headers["X-CSRFToken"] = csrfToken();
    const url = this.url(`streams/${path(run)}/input/${input.split("/").map(path).join("/")}`);
    const answer = await fetch(url, { method: "POST", headers, credentials: "same-origin", body: `{"data":${text}}` });
    if (!answer.ok) throw refusal(answer.status, (await answer.json().catch(() => ({}))).error);
  }
}

/** @param {any} subscription @param {string} event @returns {boolean} whether it was more than a comment */
function takeEvent(subscription, event) {
  const fields = { event: "", data: "", id: "" };
  for (const line of event.split("\n")) {
    const [, name, value] = /^(event|data|id): ?(.*)$/.exec(line) ?? [];
    if (name) fields[/** @type {"event"} */ (name)] += value;
  }
  if (fields.event) subscription.takeEvent(fields.event, fields.data, fields.id);
  return Boolean(fields.event);
}

/** @param {number} status @param {string} [message] */
function refusal(status, message = `The server answered ${status}.`) {
  const codes = /** @type {Record<number, string>} */ ({ 401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "gone" });
  return new RealtimeError(codes[status] ?? "refused", message, status >= 500 || status === 429 || status === 408);
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Full jitter: not all come back at once. @param {number} failures */
const delay = (failures) => Math.random() * Math.min(LONGEST, SHORTEST * 2 ** Math.min(failures, 10));

/** @param {string | undefined} token @returns {number} ms since 1970, or 0 */
function expiry(token) {
  try {
    const claims = (token ?? "").split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(atob(claims)).exp * 1000 || 0;
  } catch {
    return 0;
  }
}

function csrfToken() {
  const meta = document.querySelector('meta[name="realtime-runs"]');
  const cookie = /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie);
  return (meta instanceof HTMLElement && meta.dataset.csrf) || (cookie ? cookie[1] : "");
}
