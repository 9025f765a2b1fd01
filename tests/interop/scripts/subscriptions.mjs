// Run subscriptions: wire-protocol 7.
import { auth, batch, runs, streams, tasks } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, client, clientWith, done, finished, plain, sleep, unique, until } from "./checks.mjs";

check("subscribeToRun shows each status and the progress, and ends with the run", async () => {
  const handle = await tasks.trigger("progress-task", { items: ["a", "b", "c"], delayMs: 500 });
  const seen = await all(runs.subscribeToRun(handle.id));
  const last = seen.at(-1);
  assert.equal(last.status, "COMPLETED");
  assert.deepEqual(last.output, { processed: 3 });
  assert.equal(last.metadata.status, "completed");
  assert.deepEqual(last.metadata.progress, { current: 3, total: 3, percentage: 100, currentItem: "c" });
  const progress = seen.map((run) => run.metadata?.progress?.current ?? 0);
  assert.deepEqual(
    progress,
    progress.toSorted((a, b) => a - b),
  );
  assert.ok(
    seen.some((run) => run.isExecuting && run.metadata?.progress),
    `progress was only seen as ${progress}`,
  );
});

check("a run that is final already is shown once", async () => {
  const run = await done("echo", "hello");
  const seen = await all(runs.subscribeToRun(run.id));
  assert.equal(seen.length, 1);
  assert.equal(seen[0].output, "hello");
});

check("a row has the fields and types of the official run object", async () => {
  const tag = unique("fields");
  const metadata = { step: 0, é: ["ü", null] };
  const { id } = await tasks.trigger("echo", { n: 1 }, { tags: [tag, 'a"b\\c'], metadata, ttl: "1h" });
  await finished(id);
  const [run] = await all(runs.subscribeToRun(id));
  assert.equal(run.id, id);
  assert.equal(run.taskIdentifier, "echo");
  for (const name of ["createdAt", "updatedAt", "startedAt", "finishedAt"]) {
    assert.ok(run[name] instanceof Date, `${name} is ${run[name]}`);
    assert.ok(Math.abs(run[name] - Date.now()) < 60_000, `${name} is ${run[name]}`);
  }
  assert.deepEqual(run.tags.toSorted(), [tag, 'a"b\\c'].toSorted());
  assert.deepEqual(run.metadata, metadata);
  assert.deepEqual(run.payload, { n: 1 });
  assert.deepEqual(run.output, { n: 1 });
  assert.equal(run.isTest, false);
  assert.equal(typeof run.durationMs, "number");
  assert.equal(run.costInCents, 0);
  assert.deepEqual(run.realtimeStreams, []);
  assert.equal(run.delayedUntil, undefined);
  assert.equal(run.error, undefined);
  assert.deepEqual(
    [run.isQueued, run.isExecuting, run.isWaiting, run.isCompleted, run.isSuccess, run.isFailed, run.isCancelled],
    [false, false, false, true, true, false, false],
  );
});

check("a row restores what JSON cannot say: Date, bigint, Map, undefined", async () => {
  const payload = { when: new Date(0), big: 12345678901234567890n, map: new Map([["k", 1]]), nothing: undefined };
  const { id } = await tasks.trigger("echo", payload);
  await finished(id);
  const [run] = await all(runs.subscribeToRun(id));
  assert.deepEqual(run.payload, payload);
});

check("subscribeToRun takes a handle's token", async () => {
  const handle = await tasks.trigger("slow", { seconds: 0.2 });
  const rows = await all(clientWith(handle.publicAccessToken).subscribeToRun(handle.id));
  assert.equal(rows.at(-1).status, "COMPLETED");
});

check("a failed run ends its subscription with the error", async () => {
  const { id } = await tasks.trigger("fail", { message: "no luck" });
  const last = (await all(runs.subscribeToRun(id))).at(-1);
  assert.equal(last.status, "FAILED");
  assert.equal(last.isFailed, true);
  assert.equal(last.error.message, "no luck");
  assert.equal(last.error.name, "RuntimeError");
  assert.match(last.error.stackTrace, /RuntimeError: no luck/);
  assert.equal(last.output, undefined);
});

check("a cancelled run ends its subscription", async () => {
  const { id } = await tasks.trigger("slow", { seconds: 60 });
  const subscription = all(runs.subscribeToRun(id));
  await until(async () => (await runs.retrieve(id)).isExecuting, "the run executes");
  await runs.cancel(id);
  const last = (await subscription).at(-1);
  assert.equal(last.status, "CANCELED");
  assert.ok(last.isCancelled && last.finishedAt instanceof Date);
});

check("a delayed run is shown with its time, and ends its subscription when it is cancelled", async () => {
  const { id } = await tasks.trigger("echo", 1, { delay: "1h" });
  const seen = [];
  for await (const run of runs.subscribeToRun(id)) {
    seen.push(run.status);
    if (run.status === "DELAYED") {
      assert.ok(run.isQueued);
      assert.ok(run.delayedUntil - Date.now() > 3_000_000);
      await runs.cancel(id);
    }
  }
  assert.deepEqual(seen, ["DELAYED", "CANCELED"]);
});

check("skipColumns leaves columns out of the rows", async () => {
  const { id } = await tasks.trigger("echo", { n: 1 }, { metadata: { a: 1 } });
  await finished(id);
  const [run] = await all(runs.subscribeToRun(id, { skipColumns: ["payload", "output", "metadata"] }));
  assert.equal(run.status, "COMPLETED");
  assert.deepEqual([run.payload, run.output, run.metadata], [undefined, undefined, undefined]);
});

check("a signal ends a subscription", async () => {
  const { id } = await tasks.trigger("slow", { seconds: 60 });
  const stop = new AbortController();
  for await (const run of runs.subscribeToRun(id, { signal: stop.signal })) {
    assert.equal(run.id, id);
    stop.abort();
  }
  await runs.cancel(id);
});

check("with stopOnCompletion: false a subscription goes on after the run", async () => {
  const run = await done("echo", 1);
  const stop = new AbortController();
  let rows = 0;
  const loop = (async () => {
    for await (const _ of runs.subscribeToRun(run.id, { stopOnCompletion: false, signal: stop.signal })) rows++;
    return "ended";
  })();
  await until(() => rows, "a row");
  assert.equal(await Promise.race([loop, sleep(500, "goes on")]), "goes on");
  stop.abort();
  assert.equal(await loop, "ended");
});

check("subscribeToRunsWithTag shows runs of the tag, old and new, and no others", async () => {
  const tag = unique("user");
  const old = await done("echo", "old", { tags: tag });
  const stop = new AbortController();
  const seen = new Map();
  const loop = (async () => {
    for await (const run of runs.subscribeToRunsWithTag(tag, {}, { signal: stop.signal })) seen.set(run.id, run);
  })();
  await until(() => seen.has(old.id), "the old run");
  const [fresh] = await Promise.all([
    tasks.trigger("echo", "new", { tags: [tag, "other"] }),
    tasks.trigger("echo", "foreign"),
  ]);
  await until(() => seen.get(fresh.id)?.status === "COMPLETED", "the new run");
  stop.abort();
  await loop;
  assert.deepEqual([...seen.keys()], [old.id, fresh.id]);
});

check("several tags mean runs that carry all of them, also when the last one came later", async () => {
  const [a, b] = [unique("a"), unique("b")];
  const [both, late] = await Promise.all([
    tasks.trigger("echo", 1, { tags: [a, b] }),
    tasks.trigger("slow", { seconds: 30 }, { tags: [a] }),
  ]);
  const stop = new AbortController();
  const seen = new Set();
  const filter = { createdAt: "10m", skipColumns: ["payload", "output"] };
  const loop = (async () => {
    for await (const run of runs.subscribeToRunsWithTag([a, b], filter, { signal: stop.signal })) seen.add(run.id);
  })();
  await until(() => seen.has(both.id), "the run with both tags");
  assert.ok(!seen.has(late.id));
  await client.addTags(late.id, { tags: [b] });
  await until(() => seen.has(late.id), "the run that got the second tag");
  stop.abort();
  await loop;
  await runs.cancel(late.id);
});

check("subscribeToBatch shows the runs of the batch", async () => {
  const handle = await tasks.batchTrigger("echo", [{ payload: "one" }, { payload: "two" }, { payload: "three" }]);
  const outputs = new Map();
  for await (const run of runs.subscribeToBatch(handle.batchId)) {
    if (run.isCompleted) outputs.set(run.id, run.output);
    if (outputs.size === 3) break;
  }
  assert.deepEqual([...outputs.values()].toSorted(), ["one", "three", "two"]);
  assert.deepEqual([...outputs.keys()].toSorted(), (await batch.retrieve(handle.batchId)).runs.toSorted());
});

check("a batch can be followed before its items are there", async () => {
  const made = await client.createBatch({ runCount: 1, taskIdentifiers: ["echo"] });
  const stop = new AbortController();
  const subscription = client.subscribeToBatch(made.id, { signal: stop.signal });
  const first = subscription[Symbol.asyncIterator]().next();
  await sleep(300);
  await client.streamBatchItems(made.id, [
    { index: 0, task: "echo", payload: "x", options: { payloadType: "text/plain" } },
  ]);
  const { value } = await first;
  stop.abort();
  assert.equal(value.taskIdentifier, "echo");
});

check("withStreams gives the run and the chunks of all its streams", async () => {
  const { id } = await tasks.trigger("multi-stream", { count: 3, delayMs: 30 });
  const chunks = {};
  let status;
  for await (const part of runs.subscribeToRun(id).withStreams()) {
    if (part.type === "run") status = part.run.status;
    else (chunks[part.type] ??= []).push(part.chunk);
    const count = Object.values(chunks).flat().length;
    if (status === "COMPLETED" && count === 9) break; // the loop never ends by itself
  }
  assert.deepEqual(chunks, {
    "ai-output": ["token-0", "token-1", "token-2"],
    progress: [1, 2, 3].map((step) => ({ step, total: 3 })),
    default: ["default-0", "default-1", "default-2"],
  });
});

check("a row names the streams of the run, and not its input streams", async () => {
  const { id } = await tasks.trigger("multi-stream", { count: 1 }, { delay: "1h" });
  await streams.input({ id: "approval" }).send(id, 1);
  await client.appendToStream(id, "self", "log", "x");
  await runs.cancel(id);
  const [run] = await all(runs.subscribeToRun(id));
  assert.deepEqual(run.realtimeStreams, ["log"]);
});

check("a public token follows what its scopes name", async () => {
  const tag = unique("tenant");
  const run = await done("echo", 1, { tags: tag });
  const token = await auth.createPublicToken({ scopes: { read: { tags: tag } } });
  const [row] = await all(clientWith(token).subscribeToRun(run.id));
  assert.equal(row.id, run.id);
  const feed = clientWith(token).subscribeToRunsWithTag([tag])[Symbol.asyncIterator]();
  assert.equal((await feed.next()).value.id, run.id);
});

check("the skipColumns of a token win over those of the caller", async () => {
  const run = await done("echo", { secret: 1 });
  const token = await auth.createPublicToken({
    scopes: { read: { runs: run.id } },
    realtime: { skipColumns: ["payload", "output"] },
  });
  const [row] = await all(clientWith(token).subscribeToRun(run.id, { skipColumns: ["metadata"] }));
  assert.deepEqual([row.status, row.payload, row.output], ["COMPLETED", undefined, undefined]);
});

check("a refused subscription tells onFetchError why", async () => {
  const foreign = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: "run_other" } } });
  const refusals = [
    [clientWith("tr_dev_no_such_key").subscribeToRun, [foreign.id], 401],
    [clientWith(token).subscribeToRun, [foreign.id], 403],
    [client.subscribeToRun, ["run_doesnotexist0000000000"], 404],
  ];
  const clients = [clientWith("tr_dev_no_such_key"), clientWith(token), client];
  for (const [position, [subscribe, [id], status]] of refusals.entries()) {
    const stop = new AbortController();
    const error = await new Promise((resolve, reject) => {
      const options = { signal: stop.signal, onFetchError: resolve };
      all(subscribe.call(clients[position], id, options)).then(() => reject(new Error("it ended")), reject);
    });
    stop.abort();
    assert.equal(error.status, status);
  }
});

check("a subscription whose handle belongs to another begins again with 409", async () => {
  const run = await done("echo", 1);
  const answer = await plain("GET", `/realtime/v1/runs/${run.id}?offset=0_0&handle=of-another&live=true&cursor=`);
  assert.equal(answer.status, 409);
  assert.deepEqual(answer.json, [{ headers: { control: "must-refetch" } }]);
  assert.ok(answer.headers.get("electric-handle"));
});
