// What the scripts share. A check is one sentence and a function that throws when it does not hold.
import { ApiClient } from "@trigger.dev/core/v3";
import { runs, tasks } from "@trigger.dev/sdk";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

export const checks = [];
export const check = (name, fn) => checks.push({ name, fn });

export const url = process.env.TRIGGER_API_URL;
export const secretKey = process.env.TRIGGER_SECRET_KEY;
export const unique = (prefix) => `${prefix}-${randomUUID().slice(0, 8)}`;

// The client that the packages use inside, with a credential of one's own; `retry` off, so that refusals come at once.
export const clientWith = (token) => new ApiClient(url, token, undefined, { retry: { maxAttempts: 1 } });
export const client = clientWith(secretKey);

export const finished = (id) => runs.poll(id, { pollIntervalMs: 50 });

// Triggers and waits for the end; gives the run as runs.retrieve does.
export async function done(task, payload, options) {
  const handle = await tasks.trigger(task, payload, options);
  return finished(handle.id);
}

export async function until(condition, what, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${typeof what === "function" ? what() : what}: not within ${ms / 1000} s`);
    await sleep(25);
  }
}

// All that an async iterable gives.
export async function all(iterable) {
  const got = [];
  for await (const item of iterable) got.push(item);
  return got;
}

const serverFetch = globalThis.fetch; // page.mjs sets another

// A request without the packages; the answer with its body read.
export async function plain(method, path, { token = secretKey, body, headers = {} } = {}) {
  const answer = await serverFetch(path.startsWith("http") ? path : url + path, {
    method,
    headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...headers },
    body,
    ...(body instanceof ReadableStream ? { duplex: "half" } : {}),
  });
  const text = await answer.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {}
  return { status: answer.status, headers: answer.headers, text, json };
}

export const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
export { sleep };
