// Streams: wire-protocol 8.
import { realtimeStreams } from "@trigger.dev/core/v3";
import { StandardRealtimeStreamsManager } from "@trigger.dev/core/v3/workers";
import { auth, runs, streams, tasks } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { all, check, client, clientWith, done, plain, sleep, until, url } from "./checks.mjs";

const words = (stream) => all(stream).then((chunks) => chunks.join(" "));
realtimeStreams.setGlobalManager(new StandardRealtimeStreamsManager(client, url)); // as a worker does
process.on("unhandledRejection", (error) => {
  if (error.status !== 400) throw error; // streams.pipe() leaves a refusal in a promise that nobody can await
});

async function* source(chunks, pause = 0) {
  for (const chunk of chunks) {
    if (pause) await sleep(pause);
    yield chunk;
  }
}

// A run that does nothing for as long as a check writes into it.
async function quiet() {
  return (await tasks.trigger("echo", 1, { delay: "1h" })).id;
}

check("streams.read gives every chunk while the run writes, and ends after it", async () => {
  const { id } = await tasks.trigger("stream-text", { text: "one two three four", delayMs: 50 });
  assert.equal(await words(await streams.read(id, "ai-output")), "one two three four");
});

check("chunks are seen while the run executes", async () => {
  const { id } = await tasks.trigger("stream-text", { text: "first second", delayMs: 1500 });
  for await (const chunk of await streams.read(id, "ai-output")) {
    assert.equal(chunk, "first");
    assert.equal((await runs.retrieve(id)).status, "EXECUTING");
    break;
  }
  await runs.cancel(id);
});

check("a stream can be read after its run, by several readers", async () => {
  const { id } = await done("stream-text", { text: "a b c", delayMs: 1 });
  const read = await Promise.all(Array.from({ length: 5 }, async () => words(await streams.read(id, "ai-output"))));
  assert.deepEqual(new Set(read), new Set(["a b c"]));
});

check("a stream that nobody has written yet can be read already", async () => {
  const { id } = await tasks.trigger(
    "stream-text",
    { text: "at last", delayMs: 1 },
    { delay: new Date(Date.now() + 700) },
  );
  assert.equal(await words(await streams.read(id, "ai-output")), "at last");
});

check("without a key it is the default stream", async () => {
  const { id } = await done("multi-stream", { count: 2, delayMs: 1 });
  assert.deepEqual(await all(await streams.read(id)), ["default-0", "default-1"]);
});

check("startIndex begins in the middle", async () => {
  const { id } = await done("stream-text", { text: "0 1 2 3 4", delayMs: 1 });
  for (const startIndex of [0, 1, 4]) {
    const read = await words(await streams.read(id, "ai-output", { startIndex }));
    assert.equal(read, "0 1 2 3 4".slice(2 * startIndex));
  }
});

check("from: latest begins at the end", async () => {
  const id = await quiet();
  for (const text of ["old", "older", "last"]) await streams.append("log", text, { target: id });
  const got = [];
  const stop = new AbortController();
  const reading = (async () => {
    for await (const chunk of await streams.read(id, "log", { from: "latest", signal: stop.signal })) got.push(chunk);
  })().catch((error) => assert.equal(error.name, "AbortError"));
  await until(async () => {
    await streams.append("log", "new", { target: id });
    return got.includes("new");
  }, "a new chunk");
  stop.abort();
  await reading;
  await runs.cancel(id);
  assert.ok(!got.includes("old") && !got.includes("older"), `${got}`); // the last one may come
});

check("timeoutInSeconds ends the reading of a silent stream, without an error", async () => {
  const id = await quiet();
  assert.deepEqual(await all(await streams.read(id, "silent", { timeoutInSeconds: 1 })), []);
  await runs.cancel(id);
});

check("a signal ends the reading", async () => {
  const { id } = await tasks.trigger("stream-text", { text: "one two three", delayMs: 10_000 });
  const stop = new AbortController();
  const got = [];
  try {
    for await (const chunk of await streams.read(id, "ai-output", { signal: stop.signal })) {
      got.push(chunk);
      stop.abort();
    }
  } catch (error) {
    assert.equal(error.name, "AbortError");
  }
  assert.deepEqual(got, ["one"]);
  await runs.cancel(id);
});

check("runs.fetchStream reads too", async () => {
  const { id } = await done("stream-text", { text: "a b", delayMs: 1 });
  assert.equal(await words(await runs.fetchStream(id, "ai-output")), "a b");
});

check("streams.define().read reads its stream", async () => {
  const { id } = await done("multi-stream", { count: 2, delayMs: 1 });
  const progress = streams.define({ id: "progress" });
  assert.deepEqual(await all(await progress.read(id, { startIndex: 1 })), [{ step: 2, total: 2 }]);
});

check("any JSON value is a chunk, and comes back as it was", async () => {
  const id = await quiet();
  const chunks = [
    "",
    "line\nbreak\r\n",
    "data: x",
    "é😀\u2028",
    0,
    -1.5e300,
    true,
    false,
    null,
    [],
    {},
    { a: [{ b: null }] },
    "x".repeat(70_000),
  ];
  await streams.pipe("values", source(chunks), { target: id }).waitUntilComplete();
  await runs.cancel(id);
  assert.deepEqual(await all(await streams.read(id, "values")), chunks);
});

check("streams.pipe passes the chunks on to its caller", async () => {
  const id = await quiet();
  const { stream, waitUntilComplete } = streams.pipe("log", source([{ n: 1 }, "two"]), { target: id });
  assert.deepEqual(await all(stream), [{ n: 1 }, "two"]);
  await waitUntilComplete();
  await runs.cancel(id);
  assert.deepEqual(await all(await streams.read(id, "log")), [{ n: 1 }, "two"]);
});

check("streams.writer writes and merges", async () => {
  const id = await quiet();
  const merged = new ReadableStream({
    start(controller) {
      controller.enqueue("merged");
      controller.close();
    },
  });
  const { waitUntilComplete } = streams.writer("log", {
    target: id,
    async execute({ write, merge }) {
      write("written");
      await sleep(10);
      merge(merged);
    },
  });
  await waitUntilComplete();
  await runs.cancel(id);
  assert.deepEqual(await all(await streams.read(id, "log")), ["written", "merged"]);
});

check("streams.append appends texts, define().append any value", async () => {
  const id = await quiet();
  const log = streams.define({ id: "log" });
  await streams.append("log", '{"not": "parsed"}', { target: id });
  await log.append({ n: 2 }, { target: id });
  await streams.append("log", "three", { target: id });
  await runs.cancel(id);
  assert.deepEqual(await all(await log.read(id)), ['{"not": "parsed"}', { n: 2 }, "three"]);
});

check("several writers at once lose nothing", async () => {
  const id = await quiet();
  const writers = Array.from({ length: 4 }, (_, w) => source(Array.from({ length: 25 }, (_, n) => `${w}-${n}`)));
  await Promise.all(writers.map((chunks) => streams.pipe("log", chunks, { target: id }).waitUntilComplete()));
  await runs.cancel(id);
  const read = await all(await streams.read(id, "log"));
  assert.equal(new Set(read).size, 100);
  assert.equal(read.length, 100);
  const own = read.filter((chunk) => chunk.startsWith("0-"));
  assert.deepEqual(
    own,
    Array.from({ length: 25 }, (_, n) => `0-${n}`),
  );
});

check("a writer that was cut off asks where it was, and goes on without doubles", async () => {
  const id = await quiet();
  const path = `/realtime/v1/streams/${id}/self/log`;
  const write = (from, lines) =>
    plain("POST", path, {
      headers: {
        "content-type": "application/json",
        "x-client-id": "abcd",
        "x-resume-from-chunk": `${from}`,
        "x-stream-version": "v1",
      },
      body: lines.map((line) => JSON.stringify(line) + "\n").join(""),
    });
  const last = async () =>
    (await plain("HEAD", path, { headers: { "x-client-id": "abcd" } })).headers.get("x-last-chunk-index");
  assert.equal(await last(), "-1");
  assert.equal((await write(0, ["a", "b"])).status, 200);
  assert.equal(await last(), "1");
  assert.equal((await write(1, ["b", "c"])).status, 200); // "b" was there already
  assert.equal(await last(), "2");
  await runs.cancel(id);
  assert.deepEqual(await all(await streams.read(id, "log")), ["a", "b", "c"]);
});

check("the streams of a run are named in its rows as soon as they are written", async () => {
  const id = await quiet();
  const stop = new AbortController();
  const rows = [];
  const loop = (async () => {
    for await (const run of runs.subscribeToRun(id, { signal: stop.signal })) rows.push(run.realtimeStreams);
  })();
  await until(() => rows.length, "the run");
  await streams.append("log", "x", { target: id });
  await until(() => rows.at(-1).includes("log"), "the row with the stream");
  stop.abort();
  await loop;
  await runs.cancel(id);
});

check("a public token reads the streams of its run", async () => {
  const { id, publicAccessToken } = await tasks.trigger("stream-text", { text: "for you", delayMs: 1 });
  assert.equal(await words(await clientWith(publicAccessToken).fetchStream(id, "ai-output")), "for you");
});

check("a refused reading throws", async () => {
  const run = await done("echo", 1);
  const token = await auth.createPublicToken({ scopes: { read: { runs: "run_other" } } });
  const read = async (own, id) => all(await own.fetchStream(id, "log"));
  await assert.rejects(read(clientWith(token), run.id), { status: 403 });
  await assert.rejects(read(clientWith("tr_dev_no_such_key"), run.id), { status: 401 });
  await assert.rejects(read(client, "run_doesnotexist0000000000"), { status: 404 });
});

check("a finished run takes no chunks", async () => {
  const run = await done("echo", 1);
  await assert.rejects(streams.append("log", "late", { target: run.id }), { status: 400 });
  const { waitUntilComplete } = streams.pipe("log", source(["late"]), { target: run.id });
  await assert.rejects(waitUntilComplete(), { status: 400 });
});
