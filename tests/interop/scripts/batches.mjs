// Batches: wire-protocol 4.2 to 4.6.
import { batch, BatchTriggerError, idempotencyKeys, runs, tasks } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, claimsOf, client, clientWith, finished, plain, unique, until } from "./checks.mjs";

check("tasks.batchTrigger makes runs in the order of the items", async () => {
  const tag = unique("batch");
  const items = [0, 1, 2, 3].map((n) => ({
    payload: { n, when: new Date(n) },
    options: { tags: [tag], metadata: { n } },
  }));
  const handle = await tasks.batchTrigger("echo", items);
  assert.match(handle.batchId, /^batch_[a-z0-9]{20,}$/);
  assert.equal(handle.runCount, 4);
  assert.deepEqual(claimsOf(handle.publicAccessToken).scopes, [`read:batch:${handle.batchId}`]);
  const made = await until(async () => {
    const retrieved = await batch.retrieve(handle.batchId);
    return retrieved.status === "COMPLETED" && retrieved;
  }, "the batch is complete");
  assert.equal(made.runCount, 4);
  assert.ok(made.createdAt instanceof Date && made.processing.completedAt instanceof Date);
  assert.deepEqual(made.processing.errors, []);
  const retrieved = await Promise.all(made.runs.map((id) => runs.retrieve(id)));
  assert.deepEqual(
    retrieved.map((run) => run.payload.n),
    [0, 1, 2, 3],
  );
  assert.deepEqual(
    retrieved.map((run) => run.metadata.n),
    [0, 1, 2, 3],
  );
  assert.ok(retrieved.every((run) => run.batchId === handle.batchId && run.triggerFunction === "batchTrigger"));
  const { id, items: results } = await client.getBatchResults(handle.batchId);
  assert.equal(id, handle.batchId);
  assert.ok(results.every((result) => result.ok && result.taskIdentifier === "echo"));
  assert.deepEqual(
    results.map((result) => JSON.parse(result.output).n),
    [0, 1, 2, 3],
  );
});

check("batch.trigger makes runs of several tasks", async () => {
  const handle = await batch.trigger([
    { id: "echo", payload: "one" },
    { id: "fail", payload: { message: "two" } },
  ]);
  const made = await until(async () => {
    const retrieved = await batch.retrieve(handle.batchId);
    return retrieved.status === "COMPLETED" && retrieved;
  }, "the batch is complete");
  const [one, two] = await Promise.all(made.runs.map((id) => runs.retrieve(id)));
  assert.deepEqual(
    [one.taskIdentifier, one.output, two.taskIdentifier, two.error.message],
    ["echo", "one", "fail", "two"],
  );
  const { items } = await client.getBatchResults(handle.batchId);
  assert.deepEqual(
    items.map((item) => item.ok),
    [true, false],
  );
  assert.equal(items[1].error.type, "BUILT_IN_ERROR");
});

check("a batch may come as a stream of items", async () => {
  async function* items() {
    for (let n = 0; n < 3; n++) yield { payload: n };
  }
  const handle = await tasks.batchTrigger("echo", items());
  assert.equal((await batch.retrieve(handle.batchId)).runs.length, 3);
});

check("a batch with a known idempotency key is the old batch", async () => {
  const idempotencyKey = await idempotencyKeys.create(unique("batch"), { scope: "global" });
  const send = () => tasks.batchTrigger("echo", [{ payload: 1 }, { payload: 2 }], { idempotencyKey });
  const [first, second] = [await send(), await send()];
  assert.equal(first.batchId, second.batchId);
  assert.equal((await batch.retrieve(first.batchId)).runs.length, 2);
});

check("items of a batch that are sent twice run once", async () => {
  const made = await client.createBatch({ runCount: 2, taskIdentifiers: ["echo"] });
  const items = [0, 1].map((index) => ({
    index,
    task: "echo",
    payload: `${index}`,
    options: { payloadType: "text/plain" },
  }));
  const first = await client.streamBatchItems(made.id, items);
  assert.deepEqual([first.itemsAccepted, first.itemsDeduplicated, first.sealed], [2, 0, true]);
  const again = await client.streamBatchItems(made.id, items);
  assert.equal(again.sealed, true);
  assert.equal((await batch.retrieve(made.id)).runs.length, 2);
});

check("a batch that cannot be made is a BatchTriggerError", async () => {
  await assert.rejects(tasks.batchTrigger("no-such-task", [{ payload: 1 }]), (error) => {
    assert.ok(error instanceof BatchTriggerError);
    assert.equal(error.phase, "stream");
    assert.ok([404, 422].includes(error.cause.status), String(error.cause));
    return true;
  });
});

check("the batch in one request of older clients still works", async () => {
  const made = await client.batchTriggerV3({
    items: [{ task: "echo", payload: "x", options: { payloadType: "text/plain" } }],
  });
  assert.equal(made.runCount, 1);
  const retrieved = await clientWith(made.publicAccessToken).retrieveBatch(made.id);
  assert.equal((await finished(retrieved.runs[0])).output, "x");
});

check("large items of a batch too", async () => {
  const items = ["a", "b"].map((letter) => ({ payload: letter.repeat(150_000) }));
  const handle = await tasks.batchTrigger("echo", items);
  const { runs: ids } = await batch.retrieve(handle.batchId);
  const outputs = await Promise.all(ids.map(async (id) => (await finished(id)).output));
  assert.deepEqual(
    outputs,
    items.map((item) => item.payload),
  );
});

check("a batch can be retrieved by the path of older clients", async () => {
  const { batchId } = await tasks.batchTrigger("echo", [{ payload: 1 }]);
  const { json } = await plain("GET", `/api/v1/batches/${batchId}`);
  assert.deepEqual([json.id, json.runCount, "processing" in json], [batchId, 1, false]);
});
