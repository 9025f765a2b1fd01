// Input streams and wait tokens: wire-protocol 9 and 10.
import { inputStreams } from "@trigger.dev/core/v3";
import { StandardInputStreamManager } from "@trigger.dev/core/v3/workers";
import { auth, runs, streams, tasks, wait } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, claimsOf, client, clientWith, finished, plain, unique, until, url } from "./checks.mjs";

const approval = streams.input({ id: "approval" });

async function waitsFor(payload) {
  const handle = await tasks.trigger("wait-approval", payload);
  await until(async () => (await runs.retrieve(handle.id)).metadata?.waitingFor, "the run waits");
  return handle;
}

check("a run that waits for an input gets what is sent", async () => {
  const { id } = await waitsFor({});
  await approval.send(id, { approved: true, by: "é" });
  assert.deepEqual((await finished(id)).output, { approval: { approved: true, by: "é" } });
});

check("an input that was sent before the run waits for it counts too", async () => {
  const { id } = await tasks.trigger("wait-approval", {}, { delay: "1h" });
  await approval.send(id, [1, null, "two"]);
  await runs.reschedule(id, { delay: new Date(Date.now() + 100) });
  assert.deepEqual((await finished(id)).output, { approval: [1, null, "two"] });
});

check("the token of a handle sends to its run, and to no other", async () => {
  const [own, other] = await Promise.all([waitsFor({}), waitsFor({ timeoutSeconds: 1 })]);
  await clientWith(own.publicAccessToken).sendInputStream(own.id, "approval", "yes");
  assert.deepEqual((await finished(own.id)).output, { approval: "yes" });
  await assert.rejects(clientWith(own.publicAccessToken).sendInputStream(other.id, "approval", "no"), { status: 403 });
  assert.deepEqual((await finished(other.id)).output, { approval: null, timedOut: true });
});

check("an input for a finished run is refused", async () => {
  const run = await finished((await tasks.trigger("echo", 1)).id);
  await assert.rejects(approval.send(run.id, 1), { status: 400 });
  await assert.rejects(approval.send("run_doesnotexist0000000000", 1), { status: 404 });
});

check("a JavaScript task reads its inputs: once() and on(), with the types that were sent", async () => {
  const { id } = await tasks.trigger("echo", 1, { delay: "1h" });
  const sent = [{ n: 1 }, "2", 3, null, [4], "plain"];
  for (const data of sent.slice(0, 3)) await streams.input({ id: "chat" }).send(id, data);
  const manager = new StandardInputStreamManager(client, url);
  manager.setRunId(id, "v2");
  inputStreams.setGlobalManager(manager); // as a worker does before it runs a task
  const chat = streams.input({ id: "chat" });
  assert.deepEqual(await chat.once(), { ok: true, output: sent[0] });
  const got = [];
  chat.on((data) => void got.push(data));
  for (const data of sent.slice(3)) await chat.send(id, data);
  await until(() => got.length === 5, "the others");
  assert.deepEqual(got, sent.slice(1));
  manager.reset();
  await runs.cancel(id);
});

check("wait.createToken gives a token and a URL", async () => {
  const tag = unique("doc");
  const token = await wait.createToken({ timeout: "10m", tags: [tag] });
  assert.match(token.id, /^waitpoint_[a-z0-9]{20,}$/);
  assert.equal(token.isCached, false);
  assert.ok(token.url.startsWith(`${url}/api/v1/waitpoints/tokens/${token.id}/callback/`), token.url);
  assert.deepEqual(claimsOf(token.publicAccessToken).scopes, [`write:waitpoints:${token.id}`]);
  const retrieved = await wait.retrieveToken(token);
  assert.deepEqual(
    [retrieved.id, retrieved.status, retrieved.tags, retrieved.url],
    [token.id, "WAITING", [tag], token.url],
  );
  assert.ok(retrieved.createdAt instanceof Date);
  assert.ok(Math.abs(retrieved.timeoutAt - Date.now() - 600_000) < 30_000);
  assert.deepEqual([retrieved.completedAt, retrieved.output, retrieved.error], [undefined, undefined, undefined]);
});

check("the same idempotency key gives the same wait token", async () => {
  const idempotencyKey = unique("approve");
  const [first, second] = [await wait.createToken({ idempotencyKey }), await wait.createToken({ idempotencyKey })];
  assert.equal(first.id, second.id);
  assert.deepEqual([first.isCached, second.isCached], [false, true]);
  assert.equal((await wait.retrieveToken(first.id)).idempotencyKey.length > 0, true);
});

check("wait.completeToken wakes the run, and its value is kept", async () => {
  const token = await wait.createToken({ timeout: "10m" });
  const { id } = await waitsFor({ mode: "token", tokenId: token.id });
  assert.deepEqual(await wait.completeToken(token, { status: "ok" }), { success: true });
  assert.deepEqual((await finished(id)).output, { approval: { status: "ok" } });
  assert.deepEqual(await wait.completeToken(token.id, { status: "late" }), { success: true });
  const retrieved = await wait.retrieveToken(token.id);
  assert.deepEqual([retrieved.status, retrieved.output], ["COMPLETED", { status: "ok" }]);
  assert.ok(retrieved.completedAt instanceof Date);
});

check("a page completes the token that was made for it", async () => {
  const [own, other] = [await wait.createToken({}), await wait.createToken({})];
  const page = clientWith(own.publicAccessToken);
  assert.deepEqual(await page.completeWaitpointToken(own.id, { data: "yes" }), { success: true });
  await assert.rejects(page.completeWaitpointToken(other.id, { data: "no" }), { status: 403 });
  assert.equal((await wait.retrieveToken(own)).output, "yes");
});

check("the URL of a token completes it, for anybody who has it", async () => {
  const token = await wait.createToken({ timeout: "10m" });
  const wrong = await plain("POST", token.url.slice(0, -4) + "0000", { token: null, body: "{}" });
  assert.equal(wrong.status, 401);
  const right = await plain("POST", token.url, {
    token: null,
    body: '{"x": 1}',
    headers: { "content-type": "application/json" },
  });
  assert.deepEqual([right.status, right.json], [200, { success: true }]);
  assert.deepEqual((await wait.retrieveToken(token)).output, { x: 1 });
});

check("a token that nobody completes times out, with an error", async () => {
  const token = await wait.createToken({ timeout: "1s" });
  const { error, status, output } = await until(async () => {
    const retrieved = await wait.retrieveToken(token);
    return retrieved.status !== "WAITING" && retrieved;
  }, "it times out");
  assert.equal(status, "TIMED_OUT");
  assert.equal(output, undefined);
  assert.ok(error instanceof Error && error.message.length > 0);
});

check("wait.listTokens filters, and goes forwards and back through its pages", async () => {
  const tag = unique("list");
  const made = [];
  for (let n = 0; n < 3; n++) made.push((await wait.createToken({ tags: [tag], timeout: "10m" })).id);
  await wait.completeToken(made[0], 1);
  const ids = (page) => page.data.map((token) => token.id);
  const first = await wait.listTokens({ tags: tag, limit: 2 });
  assert.deepEqual([ids(first), first.hasNextPage()], [[made[2], made[1]], true]);
  const second = await first.getNextPage();
  assert.deepEqual([ids(second), second.hasNextPage()], [[made[0]], false]);
  assert.deepEqual(ids(await second.getPreviousPage()), [made[2], made[1]]);
  assert.deepEqual(
    (await all(wait.listTokens({ tags: [tag], status: "COMPLETED" }))).map((token) => token.id),
    [made[0]],
  );
  assert.deepEqual((await all(wait.listTokens({ tags: [tag], status: ["WAITING"], period: "1h" }))).length, 2);
});

check("a public token may complete what its scopes name", async () => {
  const token = await wait.createToken({});
  const page = await auth.createPublicToken({ scopes: { write: { waitpoints: token.id } } });
  assert.deepEqual(await clientWith(page).completeWaitpointToken(token.id, {}), { success: true });
});
