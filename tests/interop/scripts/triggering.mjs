// Trigger, idempotency keys, large payloads: wire-protocol 4.1, 11, 12.
import { configure, idempotencyKeys, runs, tasks, TriggerClient } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import {
  all,
  check,
  claimsOf,
  client,
  clientWith,
  done,
  finished,
  plain,
  secretKey,
  unique,
  until,
  url,
} from "./checks.mjs";

check("tasks.trigger gives a handle whose token reads the run and sends to its inputs", async () => {
  const handle = await tasks.trigger("echo", { hello: "world" });
  assert.match(handle.id, /^run_[a-z0-9]{20,}$/);
  const claims = claimsOf(handle.publicAccessToken);
  assert.deepEqual(claims.scopes, [`read:runs:${handle.id}`, `write:inputStreams:${handle.id}`]);
  assert.equal(claims.pub, true);
  assert.ok(Math.abs(claims.exp - claims.iat - 3600) < 5);
  assert.equal((await clientWith(handle.publicAccessToken).retrieveRun(handle.id)).id, handle.id);
});

check("configure() does what the variables of the environment do", async () => {
  configure({ baseURL: url + "/", accessToken: secretKey }); // one slash at the end is cut
  assert.equal((await done("echo", "configured")).output, "configured");
});

check("every kind of payload comes back as the output", async () => {
  const payloads = [{ a: [1, null, "é😀"] }, "plain words", "", 0, -1.5, true, null, [], {}, '{"json":1}'];
  const outputs = await Promise.all(payloads.map(async (payload) => (await done("echo", payload)).output));
  assert.deepEqual(outputs, payloads);
  assert.equal((await done("echo", undefined)).output ?? null, null);
});

check("all options of a trigger are taken, and shown where they show", async () => {
  const tag = unique("option");
  const { id } = await tasks.trigger(
    "echo",
    { n: 1 },
    {
      tags: [tag, "two"],
      metadata: { step: 0 },
      idempotencyKey: await idempotencyKeys.create(tag, { scope: "global" }),
      idempotencyKeyTTL: "1h",
      delay: "1h",
      ttl: "10m",
      queue: "other",
      concurrencyKey: "user-1",
      priority: 10,
      machine: "small-1x",
      region: "eu-central-1",
      maxAttempts: 2,
      maxDuration: 300,
      debounce: { key: "x", delay: "5s" },
      version: "20261122.1",
    },
  );
  const run = await runs.retrieve(id);
  assert.deepEqual(run.tags, [tag, "two"].toSorted());
  assert.deepEqual(run.metadata, { step: 0 });
  assert.equal(run.idempotencyKey, tag);
  assert.equal(run.status, "DELAYED");
  assert.equal(run.isQueued, true);
  assert.ok(run.delayedUntil - Date.now() > 3_500_000);
  assert.equal(run.ttl, "10m");
  await runs.cancel(id);
});

check("delay takes a Date", async () => {
  const when = new Date(Date.now() + 3_600_000);
  const { id } = await tasks.trigger("echo", 1, { delay: when });
  assert.ok(Math.abs((await runs.retrieve(id)).delayedUntil - when) < 2000);
  await runs.cancel(id);
});

check("ttl takes seconds, and is shown as a text", async () => {
  const { id } = await tasks.trigger("echo", 1, { delay: "1h", ttl: 600 });
  assert.match((await runs.retrieve(id)).ttl, /^(600s?|10m)$/);
  await runs.cancel(id);
});

check("the same idempotency key gives the same run, until it is reset", async () => {
  const name = unique("order");
  const key = await idempotencyKeys.create(name, { scope: "global" });
  const [first, second] = await Promise.all([1, 2].map((n) => tasks.trigger("echo", n, { idempotencyKey: key })));
  assert.equal(first.id, second.id);
  assert.deepEqual([first.isCached, second.isCached].toSorted(), [false, true]);
  assert.equal((await clientWith(second.publicAccessToken).retrieveRun(first.id)).idempotencyKey, name);
  assert.equal((await idempotencyKeys.reset("echo", key)).id, key);
  const third = await tasks.trigger("echo", 3, { idempotencyKey: key });
  assert.notEqual(third.id, first.id);
  await assert.rejects(idempotencyKeys.reset("fail", key), { name: "TriggerApiError", status: 404 });
});

check("a plain text as idempotency key is hashed by the client, and shown as it was written", async () => {
  const name = unique("plain key");
  const [first, other] = [
    await tasks.trigger("echo", 1, { idempotencyKey: name }),
    await tasks.trigger("slow", { seconds: 0 }, { idempotencyKey: name }),
  ];
  assert.notEqual(first.id, other.id); // keys belong to a task
  assert.equal((await tasks.trigger("echo", 2, { idempotencyKey: name })).id, first.id);
  assert.equal((await runs.retrieve(first.id)).idempotencyKey, name);
});

check("the key of a failed run is free again", async () => {
  const idempotencyKey = await idempotencyKeys.create(unique("fails"), { scope: "global" });
  const first = await done("fail", undefined, { idempotencyKey });
  assert.equal(first.status, "FAILED");
  assert.notEqual((await tasks.trigger("fail", undefined, { idempotencyKey })).id, first.id);
});

check("a repeated request with one request idempotency key makes one run", async () => {
  const headers = { "content-type": "application/json", "x-trigger-request-idempotency-key": unique("request") };
  const send = () =>
    plain("POST", "/api/v1/tasks/echo/trigger", {
      headers,
      body: '{"payload":"x","options":{"payloadType":"text/plain"}}',
    });
  const [first, second] = [await send(), await send()];
  assert.equal(first.json.id, second.json.id);
  assert.equal(second.json.isCached, false);
  assert.ok(second.headers.get("x-trigger-jwt"));
});

check("payloads of 128 KiB and more go up and come back, as text and with types", async () => {
  const text = "é".repeat(100_000);
  const typed = { when: new Date(1234), big: 2n ** 70n, filler: "x".repeat(200_000) };
  const [asText, asTyped] = await Promise.all([done("echo", text), done("echo", typed)]);
  assert.equal(asText.payload, text);
  assert.equal(asText.output, text);
  assert.equal(asTyped.payload.filler, typed.filler);
  assert.equal(asTyped.output.filler, typed.filler);
  const [row] = await all(runs.subscribeToRun(asTyped.id));
  assert.deepEqual(row.payload, typed);
  assert.equal(row.output.filler, typed.filler);
});

check("a token reads the large payload of the run that it names", async () => {
  const handle = await tasks.trigger("echo", "x".repeat(200_000));
  await finished(handle.id);
  const [row] = await all(clientWith(handle.publicAccessToken).subscribeToRun(handle.id));
  assert.equal(row.payload.length, 200_000);
  assert.equal((await clientWith(handle.publicAccessToken).retrieveRun(handle.id)).id, handle.id);
});

check("a TriggerClient of one's own needs no variables", async () => {
  const own = new TriggerClient({ baseURL: url, accessToken: secretKey });
  const handle = await own.tasks.trigger("echo", "own");
  assert.equal((await finished(handle.id)).output, "own");
});

check("the routes of packets lead to the texts", async () => {
  const text = JSON.stringify({ json: "x".repeat(200_000) });
  const up = await client.createUploadPayloadUrl("trigger/a b/payload.json");
  const sent = await plain("PUT", up.presignedUrl, {
    token: null,
    body: text,
    headers: { "content-type": "application/super+json" },
  });
  assert.ok(sent.status < 300, `${sent.status} ${sent.text}`);
  const down = await client.getPayloadUrl(up.storagePath);
  assert.equal((await plain("GET", down.presignedUrl, { token: null })).text, text);
  const options = { payloadType: "application/store" };
  const handle = await client.triggerTask("echo", { payload: up.storagePath, options });
  const run = await finished(handle.id);
  assert.equal(run.output.length, 200_000);
  const own = await clientWith(handle.publicAccessToken).getRunPacketUrl(run.id, "payload", up.storagePath);
  const packet = await plain("GET", own.presignedUrl, { token: null });
  assert.deepEqual([packet.headers.get("content-type"), packet.text], ["application/super+json", text]);
});
