// Tokens, scopes and refusals: wire-protocol 1.4, 1.5 and 2.
import { auth, batch, runs, tasks } from "@trigger.dev/sdk";
import * as sdk from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, claimsOf, client, clientWith, done, plain, unique, url } from "./checks.mjs";

const is = (kind, status, message) => (error) => {
  assert.ok(error instanceof sdk[kind], `${error.constructor.name}: ${error.message}`);
  assert.equal(error.name, "TriggerApiError");
  assert.equal(error.status, status);
  if (message) assert.match(error.message, message);
  return true;
};

check("auth.createPublicToken makes tokens that the server takes, for each kind of scope", async () => {
  const tag = unique("user:1234"); // an id may hold a colon
  const { batchId } = await tasks.batchTrigger("echo", [{ payload: 1, options: { tags: [tag] } }]);
  const [id] = (await batch.retrieve(batchId)).runs;
  const scopes = [
    { runs: id },
    { runs: true },
    { tasks: "echo" },
    { tags: tag },
    { batch: batchId },
    { tags: ["other", tag] },
  ];
  for (const read of scopes) {
    const token = await auth.createPublicToken({ scopes: { read } });
    assert.equal((await clientWith(token).retrieveRun(id)).id, id, JSON.stringify(read));
  }
  const foreign = [{ runs: "run_other" }, { tasks: "fail" }, { tags: "other" }, { batch: "batch_other" }, {}];
  for (const read of foreign) {
    const token = await auth.createPublicToken({ scopes: { read } });
    await assert.rejects(clientWith(token).retrieveRun(id), is("PermissionDeniedError", 403), JSON.stringify(read));
  }
});

check("a token without scopes may do nothing", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken();
  await assert.rejects(clientWith(token).retrieveRun(run.id), is("PermissionDeniedError", 403));
});

check("a token to write cancels the run that it names, and no other", async () => {
  const [own, other] = await Promise.all([0, 1].map(() => tasks.trigger("echo", 1, { delay: "1h" })));
  const token = await auth.createPublicToken({ scopes: { write: { runs: own.id } } });
  assert.deepEqual(await clientWith(token).cancelRun(own.id), { id: own.id });
  await assert.rejects(clientWith(token).cancelRun(other.id), is("PermissionDeniedError", 403));
  await runs.cancel(other.id);
});

check("expirationTime: a token that is over is a 401", async () => {
  const run = await done("echo", 1);
  const scopes = { read: { runs: run.id } };
  const lasts = await auth.createPublicToken({ scopes, expirationTime: "1hr" });
  assert.equal(claimsOf(lasts).exp - claimsOf(lasts).iat, 3600);
  assert.equal((await clientWith(lasts).retrieveRun(run.id)).id, run.id);
  const over = await auth.createPublicToken({ scopes, expirationTime: new Date(Date.now() - 1000) });
  await assert.rejects(clientWith(over).retrieveRun(run.id), is("AuthenticationError", 401));
});

check("a TriggerClient takes a token as its credential", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: run.id } } });
  const own = new sdk.TriggerClient({ baseURL: url, accessToken: token });
  assert.equal((await own.runs.retrieve(run.id)).id, run.id);
});

check("a token for triggering is for the tasks that it names", async () => {
  const token = await auth.createTriggerPublicToken(["echo", "slow"], { multipleUse: true });
  const body = { payload: "x", options: { payloadType: "text/plain" } };
  const [first, second] = [
    await clientWith(token).triggerTask("echo", body),
    await clientWith(token).triggerTask("echo", body),
  ];
  assert.notEqual(first.id, second.id);
  await assert.rejects(clientWith(token).triggerTask("fail", body), is("PermissionDeniedError", 403));
  await assert.rejects(clientWith(token).retrieveRun(first.id), is("PermissionDeniedError", 403));
  assert.equal((await clientWith(first.publicAccessToken).retrieveRun(first.id)).id, first.id);
});

check("a single-use token triggers once", async () => {
  const token = await auth.createTriggerPublicToken("echo", {
    expirationTime: `${600 + Math.floor(Math.random() * 9000)}s`,
  });
  assert.equal(claimsOf(token).otu, true);
  const body = { payload: "x", options: { payloadType: "text/plain" } };
  await assert.rejects(
    clientWith(token).triggerTask("echo", {
      options: {
        tags: Array(11)
          .fill("t")
          .map((t, n) => t + n),
      },
    }),
    is("UnprocessableEntityError", 422),
  );
  assert.match((await clientWith(token).triggerTask("echo", body)).id, /^run_/); // a refusal was no use
  await assert.rejects(clientWith(token).triggerTask("echo", body), is("UnprocessableEntityError", 422, /already/));
});

check("a single-use token for batches makes one batch, in both phases", async () => {
  const token = await auth.createBatchTriggerPublicToken("echo", {
    expirationTime: `${600 + Math.floor(Math.random() * 9000)}s`,
  });
  const own = clientWith(token);
  const made = await own.createBatch({ runCount: 1, taskIdentifiers: ["echo"] });
  const items = [{ index: 0, task: "echo", payload: "x", options: { payloadType: "text/plain" } }];
  assert.equal((await own.streamBatchItems(made.id, items)).sealed, true);
  assert.equal((await clientWith(made.publicAccessToken).retrieveBatch(made.id)).runCount, 1);
  await assert.rejects(
    own.createBatch({ runCount: 1, taskIdentifiers: ["echo"] }),
    is("UnprocessableEntityError", 422),
  );
});

check("the realtime claim of a trigger token goes on to the token of the run", async () => {
  const token = await auth.createTriggerPublicToken("echo", {
    multipleUse: true,
    realtime: { skipColumns: ["payload", "output"] },
  });
  const handle = await clientWith(token).triggerTask("echo", {
    payload: "secret",
    options: { payloadType: "text/plain" },
  });
  const last = (await all(clientWith(handle.publicAccessToken).subscribeToRun(handle.id))).at(-1);
  assert.deepEqual([last.status, last.payload, last.output], ["COMPLETED", undefined, undefined]);
});

check("the server makes tokens too", async () => {
  const run = await done("echo", 1);
  const { token } = await client.createPublicToken({ scopes: [`read:runs:${run.id}`], expirationTime: "1h" });
  assert.equal((await clientWith(token).retrieveRun(run.id)).id, run.id);
  await assert.rejects(client.createPublicToken({ scopes: [] }), is("BadRequestError", 400));
  const { token: weak } = await client.createPublicToken({ scopes: ["read:runs"] });
  await assert.rejects(clientWith(weak).createPublicToken({ scopes: ["admin"] }), is("AuthenticationError", 401));
});

check("a token that was changed, or signed with another key, is a 401", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: "run_other" } } });
  const [header, claims, signature] = token.split(".");
  const more = Buffer.from(JSON.stringify({ ...claimsOf(token), scopes: ["admin"] })).toString("base64url");
  const none = Buffer.from('{"alg":"none"}').toString("base64url");
  for (const forged of [
    `${header}.${more}.${signature}`,
    `${none}.${more}.`,
    `${header}.${claims}.${signature.slice(0, -4)}AAAA`,
  ]) {
    await assert.rejects(clientWith(forged).retrieveRun(run.id), is("AuthenticationError", 401));
  }
});

check("errors have the class, the status and a message that helps", async () => {
  await assert.rejects(clientWith("tr_dev_no_such_key").retrieveRun("run_x"), is("AuthenticationError", 401, /./));
  await assert.rejects(runs.retrieve("run_doesnotexist0000000000"), is("NotFoundError", 404, /not found/i));
  await assert.rejects(tasks.trigger("no-such-task", 1), is("NotFoundError", 404, /no-such-task/));
  await assert.rejects(tasks.trigger("echo", 1, { delay: "soon" }), is("BadRequestError", 400, /delay/));
  await assert.rejects(
    tasks.trigger("progress-task", { items: 3 }),
    (error) => [400, 422].includes(error.status) && /items/.test(error.message),
  );
  await assert.rejects(
    tasks.trigger("echo", 1, { tags: Array.from({ length: 11 }, (_, n) => `t${n}`) }),
    is("UnprocessableEntityError", 422, /tags/),
  );
  await assert.rejects(batch.retrieve("batch_doesnotexist0000000000"), is("NotFoundError", 404));
  await assert.rejects(sdk.wait.retrieveToken("waitpoint_doesnotexist0000000"), is("NotFoundError", 404));
});

check("what a token may not do has the body of the contract", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: "run_other" } } });
  const answer = await plain("GET", `/api/v3/runs/${run.id}`, { token });
  assert.equal(answer.status, 403);
  assert.deepEqual(answer.json, {
    error: "Unauthorized",
    code: "unauthorized",
    param: "access_token",
    type: "authorization",
  });
});

check("routes that are not served are a NotFoundError at once", async () => {
  const started = Date.now();
  await assert.rejects(sdk.schedules.list(), is("NotFoundError", 404));
  await assert.rejects(sdk.queues.list(), is("NotFoundError", 404));
  assert.ok(Date.now() - started < 5000, "it was tried again"); // a retry waits a second and more, five times
});

check("only with the secret key: metadata, tags, replay, listing wait tokens", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: run.id }, write: { runs: run.id } } });
  const own = clientWith(token);
  const calls = [
    () => own.updateRunMetadata(run.id, { metadata: {} }),
    () => own.addTags(run.id, { tags: "x" }),
    () => own.replayRun(run.id),
    () => own.listWaitpointTokens(),
    () => own.createStream(run.id, "self", "log"),
  ];
  for (const call of calls) await assert.rejects(call(), is("AuthenticationError", 401));
});
