// What a server must do that hands a request on before it is complete: wire-protocol 8.5 and 15, item 23.
import { realtimeStreams } from "@trigger.dev/core/v3";
import { StandardRealtimeStreamsManager } from "@trigger.dev/core/v3/workers";
import { runs, streams, tasks } from "@trigger.dev/sdk";
import assert from "node:assert/strict";
import { check, client, until, url } from "./checks.mjs";

realtimeStreams.setGlobalManager(new StandardRealtimeStreamsManager(client, url));

check("chunks of an open pipe are read before it closes", async () => {
  const { id } = await tasks.trigger("echo", 1, { delay: "1h" });
  const got = [];
  let controller;
  const source = new ReadableStream({ start: (own) => void (controller = own) });
  const { waitUntilComplete } = streams.pipe("log", source, { target: id });
  const reading = (async () => {
    for await (const chunk of await streams.read(id, "log")) got.push(chunk);
  })();
  for (const chunk of ["one", "two"]) {
    controller.enqueue(chunk);
    await until(() => got.at(-1) === chunk, `${chunk} is read`);
  }
  controller.close();
  await waitUntilComplete();
  await runs.cancel(id);
  await reading;
  assert.deepEqual(got, ["one", "two"]);
});
