// The React hooks in a page of another origin: wire-protocol 1.8, 2.4 and 14.
import { pageFetch } from "./page.mjs";
import * as hooks from "@trigger.dev/react-hooks";
import assert from "node:assert/strict";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import { check, plain, unique, until, url } from "./checks.mjs";

// What the backend of the page does, with its secret key.
const post = async (path, body) => {
  const answer = await plain("POST", path, {
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  assert.ok(answer.status < 300, `${answer.status} ${answer.text}`);
  return answer.json;
};
const trigger = async (task, payload, options) =>
  (await post(`/api/v1/tasks/${task}/trigger`, { payload: JSON.stringify(payload), options })).id;
const tokenFor = async (scopes, more) => (await post("/api/v1/auth/public-tokens", { scopes, ...more })).token;

// Renders a component that calls the hook; `shown()` is what it gave last.
async function render(useIt) {
  let shown;
  const Page = () => {
    shown = useIt();
    return null;
  };
  const root = createRoot(document.createElement("div"));
  root.render(createElement(hooks.TriggerAuthContext.Provider, { value: { baseURL: url } }, createElement(Page)));
  await until(() => shown, "the first rendering");
  return {
    shown: () => shown,
    until: async (condition, what) => {
      await until(
        () => condition(shown),
        () => `${what}; last: ${JSON.stringify(shown)} ${shown.error ?? ""}`,
      );
      return shown;
    },
    leave: () => root.unmount(),
  };
}

check("useRealtimeRun shows the run live, and says when it is complete", async () => {
  const id = await trigger("progress-task", { items: ["a", "b"], delayMs: 100 });
  const accessToken = await tokenFor([`read:runs:${id}`]);
  const completed = [];
  const page = await render(() =>
    hooks.useRealtimeRun(id, { accessToken, onComplete: (run, error) => completed.push([run.id, error]) }),
  );
  await page.until(({ run }) => run?.metadata?.progress, "progress");
  const { run } = await page.until(({ run }) => run?.isCompleted, "the end");
  assert.deepEqual(run.output, { processed: 2 });
  await until(() => completed.length, "onComplete");
  assert.deepEqual(completed, [[id, undefined]]);
  page.leave();
});

check("useRealtimeRun shows why it was refused", async () => {
  const id = await trigger("echo", 1);
  const expected = [
    [["read:runs:run_other"], id, 403],
    [["read:runs"], "run_doesnotexist0000000000", 404],
  ];
  for (const [scopes, run, status] of expected) {
    const accessToken = await tokenFor(scopes);
    const page = await render(() => hooks.useRealtimeRun(run, { accessToken }));
    assert.equal((await page.until(({ error }) => error, "the error")).error.status, status);
    page.leave();
  }
});

check("useRealtimeRunWithStreams shows the run and its streams", async () => {
  const id = await trigger("multi-stream", { count: 3, delayMs: 30 });
  const accessToken = await tokenFor([`read:runs:${id}`]);
  const page = await render(() => hooks.useRealtimeRunWithStreams(id, { accessToken }));
  const { streams } = await page.until(
    ({ run, streams }) => run?.isCompleted && Object.values(streams).flat().length === 9,
    "the run and nine chunks",
  );
  assert.deepEqual(streams["ai-output"], ["token-0", "token-1", "token-2"]);
  assert.deepEqual(streams.progress[0], { step: 1, total: 3 });
  page.leave();
});

check("useRealtimeRunsWithTag shows runs as they come", async () => {
  const tag = unique("user:7");
  const accessToken = await tokenFor([`read:tags:${tag}`]);
  const page = await render(() => hooks.useRealtimeRunsWithTag(tag, { accessToken }));
  const id = await trigger("echo", 1, { tags: [tag] });
  const { runs } = await page.until(({ runs }) => runs[0]?.isCompleted, "the run");
  assert.deepEqual(
    runs.map((run) => run.id),
    [id],
  );
  page.leave();
});

check("useRealtimeBatch shows the runs of a batch", async () => {
  const items = ["one", "two"].map((payload) => ({ task: "echo", payload, options: { payloadType: "text/plain" } }));
  const { id } = await post("/api/v2/tasks/batch", { items });
  const accessToken = await tokenFor([`read:batch:${id}`]);
  const page = await render(() => hooks.useRealtimeBatch(id, { accessToken }));
  const { runs } = await page.until(({ runs }) => runs.filter((run) => run.isCompleted).length === 2, "both runs");
  assert.deepEqual(runs.map((run) => run.output).toSorted(), ["one", "two"]);
  page.leave();
});

check("useRealtimeStream shows chunks as they come", async () => {
  const words = "one two three four five six seven eight".split(" "); // enough for a page that is late on a busy machine
  const id = await trigger("stream-text", { text: words.join(" "), delayMs: 400 });
  const accessToken = await tokenFor([`read:runs:${id}`]);
  const data = [];
  const page = await render(() =>
    hooks.useRealtimeStream(id, "ai-output", { accessToken, onData: (part) => data.push(part) }),
  );
  await page.until(({ parts }) => 0 < parts.length && parts.length < words.length, "chunks before the end");
  const { parts } = await page.until(({ parts }) => parts.length === words.length, "all chunks");
  assert.deepEqual(parts, words);
  assert.deepEqual(data, parts);
  page.leave();
});

check("useRealtimeStream begins where it is told, and shows why it was refused", async () => {
  const id = await trigger("stream-text", { text: "0 1 2 3", delayMs: 1 });
  const accessToken = await tokenFor([`read:runs:${id}`]);
  const page = await render(() => hooks.useRealtimeStream(id, "ai-output", { accessToken, startIndex: 2 }));
  const { parts } = await page.until(({ parts }) => parts.at(-1) === "3", "the end");
  assert.deepEqual(parts, ["2", "3"]);
  page.leave();
  const foreign = await tokenFor(["read:runs:run_other"]);
  const refused = await render(() => hooks.useRealtimeStream(id, "ai-output", { accessToken: foreign }));
  assert.equal((await refused.until(({ error }) => error, "the error")).error.status, 403);
  refused.leave();
});

check("useTaskTrigger triggers with a single-use token, and its handle has a token of its own", async () => {
  const accessToken = await tokenFor(["trigger:tasks:echo"], { oneTimeUse: true, expirationTime: "20m" });
  const page = await render(() => hooks.useTaskTrigger("echo", { accessToken }));
  page.shown().submit({ from: "page" });
  const { handle } = await page.until(({ handle }) => handle, "the handle");
  const answer = await plain("GET", `/api/v3/runs/${handle.id}`, { token: handle.publicAccessToken });
  assert.deepEqual([answer.status, answer.json.payload], [200, { from: "page" }]);
  page.shown().submit({ from: "page, again" });
  assert.equal((await page.until(({ error }) => error, "the refusal")).error.status, 422);
  page.leave();
});

check("useRealtimeTaskTrigger triggers and shows the run", async () => {
  const accessToken = await tokenFor(["trigger:tasks:progress-task"]);
  const page = await render(() => hooks.useRealtimeTaskTrigger("progress-task", { accessToken }));
  page.shown().submit({ items: ["a", "b"], delayMs: 50 });
  const { run, handle } = await page.until(({ run }) => run?.isCompleted, "the end");
  assert.deepEqual([run.id, run.output], [handle.id, { processed: 2 }]);
  page.leave();
});

check("useRealtimeTaskTriggerWithStreams triggers and shows the run and its streams", async () => {
  const accessToken = await tokenFor(["trigger:tasks:stream-text"]);
  const page = await render(() => hooks.useRealtimeTaskTriggerWithStreams("stream-text", { accessToken }));
  page.shown().submit({ text: "streamed to the page", delayMs: 20 });
  const { streams } = await page.until(
    ({ run, streams }) => run?.isCompleted && streams["ai-output"]?.length === 4,
    "the end",
  );
  assert.equal(streams["ai-output"].join(" "), "streamed to the page");
  page.leave();
});

check("useWaitToken completes a wait token, and the run goes on", async () => {
  const { id: tokenId } = await post("/api/v1/waitpoints/tokens", { timeout: "10m" });
  const id = await trigger("wait-approval", { mode: "token", tokenId });
  const accessToken = await tokenFor([`write:waitpoints:${tokenId}`, `read:runs:${id}`]);
  const page = await render(() => ({
    token: hooks.useWaitToken(tokenId, { accessToken }),
    run: hooks.useRealtimeRun(id, { accessToken }).run,
  }));
  await page.until(({ token, run }) => token.isReady && run?.metadata?.waitingFor === "token", "the run waits");
  page.shown().token.complete({ approved: true });
  const { run } = await page.until(({ token, run }) => token.isCompleted && run.isCompleted, "the end");
  assert.deepEqual(run.output, { approval: { approved: true } });
  page.leave();
});

check("useInputStreamSend sends to a waiting run", async () => {
  const id = await trigger("wait-approval", {});
  const accessToken = await tokenFor([`write:inputStreams:${id}`, `read:runs:${id}`]);
  const page = await render(() => ({
    input: hooks.useInputStreamSend("approval", id, { accessToken }),
    run: hooks.useRealtimeRun(id, { accessToken }).run,
  }));
  await page.until(({ input }) => input.isReady, "it is ready");
  page.shown().input.send({ approved: "yes" });
  const { run } = await page.until(({ run }) => run?.isCompleted, "the end");
  assert.deepEqual(run.output, { approval: { approved: "yes" } });
  page.leave();
});

check("useRun retrieves a run again and again", async () => {
  const id = await trigger("slow", { seconds: 2 });
  const accessToken = await tokenFor([`read:runs:${id}`]);
  const page = await render(() => hooks.useRun(id, { accessToken, refreshInterval: 200 }));
  await page.until(({ run }) => run && !run.isCompleted, "the run before its end");
  const { run } = await page.until(({ run }) => run?.isCompleted, "the end");
  assert.deepEqual(run.output, { slept: 2 });
  page.leave();
});

check("every route for pages answers a preflight, and refusals can be read across origins", async () => {
  const id = await trigger("echo", 1);
  const routes = [
    ["POST", "/api/v1/tasks/echo/trigger"],
    ["POST", "/api/v2/tasks/batch"],
    ["POST", "/api/v3/batches"],
    ["POST", "/api/v3/batches/batch_x/items"],
    ["GET", `/api/v3/runs/${id}`],
    ["GET", "/api/v1/runs?page%5Bsize%5D=1"],
    ["GET", "/api/v2/batches/batch_x"],
    ["POST", "/api/v1/idempotencyKeys/abc/reset"],
    ["GET", `/api/v1/runs/${id}/packets/payload`],
    ["POST", "/api/v1/waitpoints/tokens/waitpoint_x/complete"],
    ["GET", `/realtime/v1/runs/${id}?offset=-1&log=full`],
    ["GET", "/realtime/v1/runs?tags=a&offset=-1"],
    ["GET", "/realtime/v1/batches/batch_x?offset=-1"],
    ["GET", `/realtime/v1/streams/${id}/log`],
    ["POST", `/realtime/v1/streams/${id}/input/approval`],
    ["GET", `/realtime/v1/streams/${id}/input/approval`],
  ];
  const more = {
    "x-trigger-electric-version": "1.0.0-beta.1",
    "x-trigger-api-version": "2025-07-16",
    "last-event-id": "0",
  };
  for (const [method, path] of routes) {
    const headers = { authorization: "Bearer tr_dev_no_such_key", "content-type": "application/json", ...more };
    const answer = await pageFetch(url + path, { method, headers, ...(method === "POST" ? { body: "{}" } : {}) });
    assert.ok(answer.status >= 400 && answer.status < 500, `${method} ${path}: ${answer.status}`);
    assert.equal(typeof (await answer.json()).error, "string", `${method} ${path}`);
  }
});
