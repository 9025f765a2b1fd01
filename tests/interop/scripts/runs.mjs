// Runs, their metadata and tags over REST: wire-protocol 5 and 6.
import { runMetadata } from "@trigger.dev/core/v3";
import { StandardMetadataManager } from "@trigger.dev/core/v3/workers";
import { metadata, runs, tasks } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, client, done, finished, unique, until } from "./checks.mjs";

const flags = (run) =>
  ["isQueued", "isExecuting", "isWaiting", "isCompleted", "isSuccess", "isFailed", "isCancelled"].filter(
    (name) => run[name],
  );

async function waiting(options) {
  return (await tasks.trigger("echo", { n: 1 }, { delay: "1h", ...options })).id;
}

check("runs.retrieve shows a finished run", async () => {
  const tag = unique("user");
  const run = await done("echo", { when: new Date(0) }, { tags: [tag], metadata: { step: 0 } });
  assert.equal(run.status, "COMPLETED");
  assert.deepEqual(flags(run), ["isCompleted", "isSuccess"]);
  for (const name of ["createdAt", "updatedAt", "startedAt", "finishedAt"]) {
    assert.ok(run[name] instanceof Date && Math.abs(run[name] - Date.now()) < 60_000, `${name} is ${run[name]}`);
  }
  assert.deepEqual(
    [run.delayedUntil, run.expiredAt, run.ttl, run.error, run.idempotencyKey, run.batchId],
    Array(6).fill(undefined),
  );
  assert.deepEqual(run.payload, { when: "1970-01-01T00:00:00.000Z" });
  assert.deepEqual(
    [run.tags, run.metadata, run.attemptCount, run.depth, run.isTest],
    [[tag], { step: 0 }, 1, 0, false],
  );
  assert.equal(run.triggerFunction, "trigger");
});

check("runs.retrieve takes a handle", async () => {
  const handle = await tasks.trigger("echo", 1);
  assert.equal((await runs.retrieve(handle)).id, handle.id);
});

check("runs.poll waits for the end", async () => {
  const { id } = await tasks.trigger("slow", { seconds: 0.5 });
  const run = await runs.poll(id, { pollIntervalMs: 100 });
  assert.deepEqual([run.status, run.output], ["COMPLETED", { slept: 0.5 }]);
});

check("a failed run has its error, and no output", async () => {
  const run = await done("fail", { message: "no luck" });
  assert.deepEqual([run.status, flags(run)], ["FAILED", ["isCompleted", "isFailed"]]);
  assert.deepEqual([run.error.name, run.error.message], ["RuntimeError", "no luck"]);
  assert.match(run.error.stackTrace, /RuntimeError: no luck/);
  assert.equal(run.output, undefined);
});

check("related runs lead to the parent, the root and the children", async () => {
  const parent = await done("echo", "parent");
  const options = { payloadType: "text/plain", parentRunId: parent.id };
  const child = await client.triggerTask("echo", { payload: "child", options });
  const run = await finished(child.id);
  assert.deepEqual([run.depth, run.relatedRuns.parent.id, run.relatedRuns.root.id], [1, parent.id, parent.id]);
  const { relatedRuns } = await runs.retrieve(parent.id);
  assert.deepEqual(
    relatedRuns.children.map((related) => related.id),
    [child.id],
  );
  assert.equal(relatedRuns.parent, undefined);
});

check("runs.list goes forwards and back through its pages", async () => {
  const tag = unique("pages");
  const made = [];
  for (let n = 0; n < 5; n++) made.push((await tasks.trigger("echo", n, { tags: tag })).id);
  const newest = made.toReversed();
  const ids = (page) => page.data.map((run) => run.id);
  const first = await runs.list({ tag, limit: 2 });
  assert.deepEqual([ids(first), first.hasNextPage(), first.hasPreviousPage()], [newest.slice(0, 2), true, false]);
  const second = await first.getNextPage();
  assert.deepEqual([ids(second), second.hasPreviousPage()], [newest.slice(2, 4), true]);
  const third = await second.getNextPage();
  assert.deepEqual([ids(third), third.hasNextPage()], [newest.slice(4), false]);
  const back = await third.getPreviousPage();
  assert.deepEqual(ids(back), newest.slice(2, 4));
  assert.deepEqual(ids(await back.getPreviousPage()), newest.slice(0, 2));
  assert.deepEqual(
    (await all(runs.list({ tag, limit: 2 }))).map((run) => run.id),
    newest,
  );
});

check("runs.list filters", async () => {
  const [tag, other] = [unique("filter"), unique("other")];
  const before = new Date();
  const [good, bad] = await Promise.all([done("echo", 1, { tags: [tag] }), done("fail", undefined, { tags: [other] })]);
  const list = async (query) => (await runs.list(query)).data.map((run) => run.id);
  assert.deepEqual(await list({ tag, status: "COMPLETED" }), [good.id]);
  assert.deepEqual(await list({ tag, status: ["FAILED", "CANCELED"] }), []);
  assert.deepEqual((await list({ tag: [tag, other] })).toSorted(), [good.id, bad.id].toSorted());
  assert.deepEqual(await list({ tag: [tag, other], taskIdentifier: ["fail"] }), [bad.id]);
  assert.deepEqual(await list({ tag, from: before, to: new Date(Date.now() + 1000), isTest: false }), [good.id]);
  assert.deepEqual(await list({ tag, to: before.getTime() - 1000 }), []);
  assert.deepEqual(await list({ tag, period: "1h" }), [good.id]);
  const [item] = (await runs.list({ tag })).data;
  assert.equal(typeof item.env.name, "string");
  assert.deepEqual([item.status, item.payload, item.output], ["COMPLETED", undefined, undefined]);
  await assert.rejects(runs.list({ limit: 101 }), { status: 400 });
});

check("runs.list finds the runs of a batch", async () => {
  const { batchId } = await tasks.batchTrigger("echo", [{ payload: 1 }, { payload: 2 }]);
  assert.equal((await runs.list({ batch: batchId })).data.length, 2);
});

check("runs.cancel ends a run, and may be repeated", async () => {
  const { id } = await tasks.trigger("slow", { seconds: 60 });
  await until(async () => (await runs.retrieve(id)).isExecuting, "the run executes");
  assert.deepEqual(await runs.cancel(id), { id });
  const run = await finished(id);
  assert.deepEqual([run.status, flags(run)], ["CANCELED", ["isCompleted", "isFailed", "isCancelled"]]);
  assert.ok(run.finishedAt instanceof Date);
  assert.deepEqual(await runs.cancel(id), { id });
});

check("runs.replay repeats a run, with other values where they are given", async () => {
  const [tag, again] = [unique("first"), unique("again")];
  const run = await done("echo", { when: new Date(7) }, { tags: [tag], metadata: { a: 1 } });
  const same = await finished((await runs.replay(run.id)).id);
  assert.notEqual(same.id, run.id);
  assert.deepEqual([same.output, same.tags], [run.output, [tag]]);
  const changed = await runs.replay(run.id, {
    payload: { hello: "again" },
    tags: [again],
    metadata: { b: 2 },
    maxAttempts: 1,
  });
  const { output, tags, metadata } = await finished(changed.id);
  assert.deepEqual([output, tags, metadata], [{ hello: "again" }, [again], { b: 2 }]);
});

check("runs.reschedule moves a delayed run", async () => {
  const id = await waiting();
  const moved = await runs.reschedule(id, { delay: "3h" });
  assert.deepEqual([moved.id, moved.status], [id, "DELAYED"]);
  assert.ok(moved.delayedUntil - Date.now() > 10_000_000);
  const soon = new Date(Date.now() + 300);
  assert.ok(Math.abs((await runs.reschedule(id, { delay: soon })).delayedUntil - soon) < 2000);
  assert.deepEqual((await finished(id)).output, { n: 1 });
  await assert.rejects(runs.reschedule(id, { delay: "1h" }), { status: 422 });
});

check("results: of a good run, of a failed one, and none before the end", async () => {
  const [good, bad, later] = await Promise.all([done("echo", { a: 1 }), done("fail", { message: "no" }), waiting()]);
  const result = await client.getRunResult(good.id);
  assert.deepEqual([result.ok, result.id, result.taskIdentifier], [true, good.id, "echo"]);
  assert.deepEqual(JSON.parse(result.output), { a: 1 });
  const failure = await client.getRunResult(bad.id);
  assert.deepEqual(
    [failure.ok, failure.error.type, failure.error.name, failure.error.message],
    [false, "BUILT_IN_ERROR", "RuntimeError", "no"],
  );
  assert.equal(await client.getRunResult(later), undefined);
  await runs.cancel(later);
  const cancelled = await client.getRunResult(later);
  assert.deepEqual([cancelled.error.type, cancelled.error.code], ["INTERNAL_ERROR", "TASK_RUN_CANCELLED"]);
});

check("apiClient.updateRunMetadata applies operations in order", async () => {
  const id = await waiting({ metadata: { n: 1, list: [1, 2, 1], gone: true } });
  const operations = [
    { type: "set", key: "a", value: { b: 1 } },
    { type: "set", key: "$.a.c", value: [1] },
    { type: "set", key: "$.x.y", value: 1 }, // a missing parent is not made
    { type: "increment", key: "n", value: 2 },
    { type: "increment", key: "n", value: -0.5 },
    { type: "append", key: "list", value: [3] },
    { type: "remove", key: "list", value: 1 },
    { type: "delete", key: "gone" },
    { type: "set", key: "dotted.key", value: "literal" },
  ];
  const wanted = { n: 2.5, list: [2, [3]], a: { b: 1, c: [1] }, "dotted.key": "literal" };
  assert.deepEqual((await client.updateRunMetadata(id, { operations })).metadata, wanted);
  assert.deepEqual((await client.getRunMetadata(id)).metadata, wanted);
  assert.deepEqual((await runs.retrieve(id)).metadata, wanted);
  assert.deepEqual((await client.updateRunMetadata(id, { metadata: { only: "this" } })).metadata, { only: "this" });
  await runs.cancel(id);
});

check("concurrent writers of metadata lose nothing", async () => {
  const id = await waiting();
  const operations = [
    { type: "increment", key: "n", value: 1 },
    { type: "append", key: "log", value: "x" },
  ];
  await Promise.all(Array.from({ length: 20 }, () => client.updateRunMetadata(id, { operations })));
  const { metadata } = await client.getRunMetadata(id);
  assert.deepEqual([metadata.n, metadata.log.length], [20, 20]);
  await runs.cancel(id);
});

check("operations for the parent and the root reach them", async () => {
  const parent = await waiting();
  const child = await client.triggerTask("echo", { options: { parentRunId: parent, delay: "1h" } });
  const rootOperations = [{ type: "append", key: "log", value: "from below" }];
  const parentOperations = [{ type: "set", key: "child", value: child.id }];
  const own = await client.updateRunMetadata(child.id, {
    operations: [{ type: "set", key: "own", value: 1 }],
    parentOperations,
    rootOperations,
  });
  assert.deepEqual(own.metadata, { own: 1 });
  await until(async () => (await client.getRunMetadata(parent)).metadata.child === child.id, "the parent has it");
  assert.deepEqual((await client.getRunMetadata(parent)).metadata.log, ["from below"]);
  await Promise.all([runs.cancel(parent), runs.cancel(child.id)]);
});

check("metadata.set and metadata.flush of a JavaScript task work", async () => {
  const id = await waiting({ metadata: { old: 1 } });
  const manager = new StandardMetadataManager(client);
  manager.runId = id;
  manager.enterWithMetadata((await client.getRunMetadata(id)).metadata);
  runMetadata.setGlobalManager(manager); // as a worker does before it runs a task
  metadata.set("progress", 0.5).increment("n", 1).append("log", "a").append("log", "b").del("old");
  await metadata.flush();
  const wanted = { progress: 0.5, n: 1, log: ["a", "b"] };
  assert.deepEqual((await client.getRunMetadata(id)).metadata, wanted);
  assert.deepEqual(metadata.current(), wanted);
  await client.updateRunMetadata(id, { operations: [{ type: "set", key: "by", value: "another" }] });
  await metadata.refresh();
  assert.equal(metadata.get("by"), "another");
  await runs.cancel(id);
});

check("apiClient.addTags adds tags, and not more than ten", async () => {
  const id = await waiting({ tags: "one" });
  assert.match((await client.addTags(id, { tags: ["one", "two", " "] })).message, /\w/);
  assert.deepEqual((await runs.retrieve(id)).tags, ["one", "two"]);
  const many = Array.from({ length: 9 }, (_, n) => `more-${n}`);
  await assert.rejects(client.addTags(id, { tags: many }), { status: 422 });
  assert.deepEqual((await runs.retrieve(id)).tags, ["one", "two"]);
  await runs.cancel(id);
});
