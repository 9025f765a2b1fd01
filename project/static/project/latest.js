// Rows of the list follow their runs by themselves. A run that has no row yet is a reason to fetch the list: fresh.js does.

import { subscribeToRunsWithTag } from "../realtime_runs/client.js";

for await (const run of subscribeToRunsWithTag("demo")) {
  if (!document.getElementById(`row-${run.id}`)) dispatchEvent(new Event("run-change"));
}
