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
const LARGEST_SEND = 48 * 1024; // bytes; what is more goes over HTTP
const OPENING = 15_000; // ms that a socket may take to say something
const SOCKET_AGAIN = 60_000; // ms
const LONG_LIFE = 5_000; // ms; what is cut off sooner is not trusted to stay

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
  const before = page.options;
  page.options = { ...defaults(), ...options };
  const isSame = (/** @type {keyof Options} */ name) => before?.[name] === page.options?.[name];
  if (isSame("base") && isSame("accessToken") && !before?.refreshAccessToken === !page.options.refreshAccessToken) {
    if (page.connection) page.connection.options = page.options;
    return;
  }
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
export const subscribeToRun = (id, options) => new Runs({ run: text(id, "The id of a run") }, `runs/${path(id)}`, options);

/** Each change of the runs with this tag, or with all of these. @param {string | string[]} tag @param {SubscribeOptions} [options] */
export const subscribeToRunsWithTag = (tag, options) =>
  new Runs({ tag: [tag].flat().map((one) => text(one, "A tag")) }, `runs?tags=${[tag].flat().map(path).join(",")}`, options);

/** Each change of the runs of a batch. @param {string} id @param {SubscribeOptions} [options] */
export const subscribeToBatch = (id, options) => new Runs({ batch: text(id, "The id of a batch") }, `batches/${path(id)}`, options);

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

/** What the server would close the whole socket for is refused here. @param {any} value @param {string} name */
function text(value, name) {
  if (typeof value === "string" && /^[^\0\ud800-\udfff]+$/u.test(value)) return value;
  throw new RealtimeError("invalid", `${name} must be a text: ${String(value)}`);
}

// -- what a loop reads ------------------------------------------------------------------------------------------------

/** What is followed, and where its reader is. Only one loop reads it. */
class Subscription {
  id = 0; // on the socket of now; another one on the next, 0 on none
  failures = 0;
  /** @type {RealtimeError | null} */
  error = null;
  isOver = false;
  isOpen = false;
  isLeft = false;
  wake = () => {};
  /** Of the events that are read for it. @type {AbortController | undefined} */
  stop = undefined;
  /** @type {Connection | undefined} */
  via = undefined;

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
    if (!this.isOver) this.error = error;
    this.wake();
  }

  [Symbol.asyncIterator]() {
    const loop = this.read();
    const leave = loop.return.bind(loop);
    loop.return = (value) => {
      this.isLeft = true; // a generator that waits would only see it at its next item
      this.wake();
      return leave(value);
    };
    return loop;
  }

  /** @returns {AsyncGenerator<any, void, void>} */
  async *read() {
    if (this.isOpen) throw new RealtimeError("busy", "Another loop reads this already.");
    if (this.signal?.aborted) return;
    const via = (this.via = connection());
    const abort = () => this.wake();
    this.isOpen = true;
    this.isLeft = false;
    this.error = null;
    this.signal?.addEventListener("abort", abort);
    via.add(this);
    try {
      while (!this.signal?.aborted && !this.isLeft) {
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
    if (!["undefined", "string"].includes(typeof this.since) && !Number.isSafeInteger(this.since)) {
      throw new RealtimeError("invalid", "`since` must be a position that a subscription had.");
    }
  }

  /** @param {any} frame */
  accept(frame) {
    if (frame.reset) for (const known of [this.held, this.changed]) known.clear();
    for (const { run: id, from, v, set } of frame.runs) {
      const old = this.held.get(id);
      if (old && v <= old.v) continue;
      const run = from ? { ...old, ...set } : set;
      for (const name in set) if (from && set[name] === null && name !== "output") delete run[name]; // it has it no more
      run.v = v;
      this.held.delete(id);
      this.held.set(id, run);
      this.changed.delete(id);
      this.changed.add(id);
    }
    let tooMany = this.held.size - MOST_RUNS; // the server forgets the same, and sends them whole again
    for (const id of this.held.keys()) {
      if (tooMany-- <= 0) break;
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
    const frame = { type: name, at: id && "run" in this.to ? Number(id) : id || undefined, ...JSON.parse(data) };
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
    const to = { stream: { run: text(run, "The id of a run"), key: text(key, "The key of a stream") } };
    super(to, `streams/${path(run)}/${key.split("/").map(path).join("/")}`, options);
    this.since = this.nextIndex = this.acked = options.startIndex ?? 0;
    if (!Number.isSafeInteger(this.since) || this.since < 0) throw new RealtimeError("invalid", "`startIndex` counts from 0.");
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
      if (this.id) this.via?.tell({ type: "ack", id: this.id, at: this.acked });
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
  isConnected = false; // as the listeners know it
  failures = 0; // in a row
  lastId = 0;
  ping = 25_000; // ms
  heardAt = 0;
  /** @type {Record<string, any>} of timers by what they are for */
  timers = {};
  /** Whether events are read instead, which stops with it. @type {AbortController | null} */
  events = null;
  /** @type {Set<() => void>} that end a pause */
  sleepers = new Set();
  isRefused = false; // the token, which is asked for anew once
  /** @type {Promise<void> | null} */
  renewal = null;

  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.token = options.accessToken;
    addEventListener("online", this.online);
    addEventListener("pageshow", this.shown);
    document.addEventListener("visibilitychange", this.shown);
    this.renewInTime();
  }

  leave() {
    removeEventListener("online", this.online);
    removeEventListener("pageshow", this.shown);
    document.removeEventListener("visibilitychange", this.shown);
    for (const name in this.timers) clearTimeout(this.timers[name]);
    this.failAll(new RealtimeError("closed", "The connection was configured anew.", true));
    this.events?.abort();
    this.close();
  }

  /** What was open before the network went is dead, though it may not know yet. */
  online = () => {
    if (this.socket) this.drop();
    this.hurry();
  };

  shown = () => {
    if (document.visibilityState === "hidden") return;
    if (this.socket && Date.now() - this.heardAt > 2 * this.ping) this.drop(); // the machine slept, and its timers
    this.hurry();
  };

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
    if (this.isReady) return this.subscribe(subscription);
    if (this.events) this.readEvents(subscription, this.events.signal);
    this.open();
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
    try {
      if (this.isRefused) await this.renew();
      if (this.subscriptions.size) this.connect();
    } catch (error) {
      if (!mayPass(error)) this.failAll(error instanceof RealtimeError ? error : new RealtimeError("invalid", String(error)));
      else this.after("again", delay(this.failures++), () => this.hurry()); // who gives tokens cannot be reached
    } finally {
      this.isOpening = false;
    }
  }

  connect() {
    const url = this.url("socket");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, this.token ? [PROTOCOL, `bearer.${this.token}`] : [PROTOCOL]);
    this.socket = socket;
    this.heard();
    socket.onmessage = ({ data }) => socket === this.socket && this.take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
  }

  close() {
    const socket = this.socket;
    this.forget();
    this.say(false);
    socket?.close(1000);
  }

  /** Not waiting until the other side agrees. */
  drop() {
    const socket = this.socket;
    this.lost(1006, "");
    socket?.close();
  }

  /** @param {RealtimeError} [error] of what was sent last */
  forget(error = new RealtimeError("disconnected", "The connection broke; whether it was sent is not known.", true)) {
    this.socket = null;
    this.isReady = false;
    for (const subscription of this.byId.values()) subscription.id = 0;
    this.byId.clear();
    clearTimeout(this.timers.silence);
    clearTimeout(this.timers.stable);
    for (const { reject } of this.sends.values()) reject(error);
    this.sends.clear();
  }

  /** A connection that is dead says nothing: not even a ping. */
  heard() {
    this.heardAt = Date.now();
    this.after("silence", this.isReady ? 2 * this.ping : OPENING, () => this.drop());
  }

  /** @param {object} frame */
  tell(frame) {
    if (this.isReady) this.socket?.send(JSON.stringify(frame));
  }

  /** @param {Subscription} subscription */
  subscribe(subscription) {
    if (subscription.id || subscription.isOver || subscription.error) return;
    subscription.id = ++this.lastId;
    this.byId.set(subscription.id, subscription);
    this.tell(subscription.request);
  }

  /** Nothing more comes for this id. @param {number} id */
  release(id) {
    const subscription = this.byId.get(id);
    if (subscription) subscription.id = 0;
    this.byId.delete(id);
  }

  /** @param {any} frame */
  take(frame) {
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
        if (frame.type === "end") this.release(frame.id);
        subscription?.take(frame);
    }
    this.heard();
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
    this.after("stable", LONG_LIFE, () => (this.failures = 0));
    this.say(true);
  }

  /** @param {any} frame @param {Subscription | undefined} subscription */
  refused(frame, subscription) {
    const error = new RealtimeError(frame.code, frame.message, frame.retry);
    this.sends.get(frame.id)?.reject(error);
    this.sends.delete(frame.id);
    this.release(frame.id);
    if (!subscription) return;
    if (!error.retry) return subscription.fail(error);
    setTimeout(() => {
      if (this.isReady && this.subscriptions.has(subscription)) this.subscribe(subscription);
    }, delay(subscription.failures++));
  }

  /** @param {number} code @param {string} reason */
  lost(code, reason) {
    const { isReady: wasReady, sends } = this;
    const mustStop = code >= 4400 && code < 4500 && code !== 4429;
    const error = mustStop ? new RealtimeError(CLOSES[code] ?? "protocol", reason || `Closed with ${code}.`) : undefined;
    const isOfSend = sends.size > 0 && (code === 4400 || code === 4413); // subscriptions send nothing that is not checked
    this.forget(isOfSend ? new RealtimeError("invalid", `It was refused: ${reason}.`) : error);
    if (!this.events) this.say(false);
    if (!this.subscriptions.size) return;
    if (code === 4401 && this.options.refreshAccessToken && !this.isRefused) {
      this.isRefused = true;
      this.open();
      return;
    }
    if (error && !isOfSend) return this.failAll(error);
    const failures = this.failures++;
    // Where no socket ever opens, something on the way does not let it through.
    if (!wasReady && failures >= (this.wasReady ? 5 : 1) && !this.events) this.readAllEvents();
    const wait = this.events ? SOCKET_AGAIN : delay(code === 4429 ? Math.max(failures, 4) : failures);
    this.after("again", wait, () => this.hurry());
  }

  /** Come back now. */
  hurry() {
    for (const wake of this.sleepers) wake();
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
    if (isConnected === this.isConnected) return;
    this.isConnected = isConnected;
    for (const listener of page.listeners) listener(isConnected);
  }

  // -- the token

  /** A new one before this expires, on the same socket. */
  renewInTime() {
    const expires = expiry(this.token);
    if (!expires || !this.options.refreshAccessToken) return;
    const left = expires - Date.now();
    // If it fails, the old one is still good; when it is not, this is asked again.
    this.after("renew", Math.max(left - Math.min(RENEW, left / 2), 1000), () => this.renew().catch(() => {}));
  }

  /** Asks once for all who need a new one just now. @returns {Promise<void>} */
  renew() {
    return (this.renewal ??= this.getToken().finally(() => (this.renewal = null)));
  }

  async getToken() {
    const token = await this.options.refreshAccessToken?.();
    if (!token) throw new RealtimeError("unauthorized", "No new token was given.");
    this.token = token;
    this.tell({ type: "refresh", token });
    this.renewInTime();
  }

  // -- HTTP: Server-Sent Events where no WebSocket comes through, and what is sent without one

  /** @param {string} path @param {RequestInit & {headers: Record<string, string>}} init */
  async fetch(path, init) {
    for (let isSecond = false; ; isSecond = true) {
      const token = this.token;
      if (token) init.headers.Authorization = `Bearer ${token}`;
      const answer = await fetch(this.url(path), { ...init, credentials: "same-origin", cache: "no-store" });
      if (answer.status !== 401 || isSecond || !this.options.refreshAccessToken) return answer;
      if (token === this.token) await this.renew();
    }
  }

  readAllEvents() {
    this.events = new AbortController();
    for (const subscription of this.subscriptions) this.readEvents(subscription, this.events.signal);
  }

  /** @param {Subscription} subscription @param {AbortSignal} signal */
  async readEvents(subscription, signal) {
    const isWanted = () => !signal.aborted && this.subscriptions.has(subscription) && !subscription.isOver && !subscription.error;
    for (let failures = 0; isWanted(); failures++) {
      const stop = (subscription.stop = new AbortController());
      signal.addEventListener("abort", () => stop.abort(), { signal: stop.signal });
      const begun = Date.now();
      try {
        const hasNews = await this.readAnswer(subscription, stop);
        if (hasNews || Date.now() - begun > LONG_LIFE) failures = 0;
      } catch (error) {
        if (!isWanted()) return;
        if (!mayPass(error)) return subscription.fail(/** @type {RealtimeError} */ (error));
        this.say(false);
      } finally {
        stop.abort();
      }
      if (isWanted()) await this.rest(delay(failures));
    }
  }

  /** @param {any} subscription @param {AbortController} stop @returns {Promise<boolean>} whether it brought something */
  async readAnswer(subscription, stop) {
    /** @type {any} */
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stop.abort(), 2 * this.ping);
    };
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (subscription.lastEventId) headers["Last-Event-ID"] = subscription.lastEventId;
    try {
      heard();
      const answer = await this.fetch(subscription.url, { headers, signal: stop.signal });
      if (answer.status === 204) {
        subscription.take({ type: "end", reason: "completed" });
        return true;
      }
      if (!answer.ok || !answer.body) throw refusal(answer.status);
      this.say(true);
      let text = "";
      let found = false;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      while (true) {
        heard();
        const { value, done } = await reader.read();
        if (done || stop.signal.aborted) return found;
        text += value;
        const events = text.split("\n\n");
        text = events.pop() ?? "";
        for (const event of events) found = takeEvent(subscription, event) || found;
        while (subscription.waiting?.length > WINDOW && !stop.signal.aborted) {
          clearTimeout(silence); // its loop is slow
          await pause(20);
        }
      }
    } finally {
      clearTimeout(silence);
    }
  }

  /** @param {number} ms or until the network is back */
  async rest(ms) {
    await new Promise((wake) => {
      const end = () => wake(this.sleepers.delete(end));
      this.sleepers.add(end);
      setTimeout(end, ms);
    });
  }

  /** @param {string} run @param {string} input @param {any} data */
  async sendInput(run, input, data) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new RealtimeError("invalid", "What is sent must be JSON.");
    const to = { run: text(run, "The id of a run"), input: text(input, "The name of an input stream") };
    if (this.isReady && new TextEncoder().encode(json).length < LARGEST_SEND) {
      const id = ++this.lastId;
      return new Promise((resolve, reject) => {
        this.sends.set(id, { resolve, reject });
        this.tell({ type: "send", id, ...to, data });
      });
    }
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json" };
    if (!this.token) headers["X-CSRFToken"] = csrfToken();
    const address = `streams/${path(run)}/input/${input.split("/").map(path).join("/")}`;
    const answer = await this.fetch(address, { method: "POST", headers, body: `{"data":${json}}` });
    if (!answer.ok) throw refusal(answer.status, (await answer.json().catch(() => ({}))).error);
  }
}

/** @type {Record<number, string>} */
const CLOSES = { 4401: "unauthorized", 4403: "forbidden", 4413: "too_large" };

/** What is not said to be for good may pass. @param {any} error */
const mayPass = (error) => (error instanceof RealtimeError ? error.retry : error?.name !== "SyntaxError");

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
