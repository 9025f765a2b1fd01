/** The page of a run: renewed in place when the run changes, at most once a second. */

import { countDurations } from "./durations.js";
import { renew, repeat } from "./morph.js";

const AT_MOST_EVERY = 1000;
const AT_LEAST_EVERY = 5000; // until the end is shown: bars grow, and no socket may be there to tell of changes

const page = document.getElementById("rr-live");
let renewing = false;
let again = false;
let isOld = false; // the last change is not fetched yet, or could not be

async function show() {
  if (renewing) {
    again = true;
    return;
  }
  renewing = true;
  again = false;
  const url = new URL(location.href);
  url.searchParams.set("part", "");
  url.searchParams.set("streams", String(page.querySelectorAll(".rr-stream").length));
  isOld = true;
  try {
    isOld = !(await renew(page, url));
  } finally {
    setTimeout(() => {
      renewing = false;
      if (again) show();
    }, AT_MOST_EVERY);
  }
}

countDurations();
document.addEventListener("run-change", (event) => {
  if (event.target.getAttribute("run") === page.dataset.run) show();
});
const UNFINISHED = ["QUEUED", "DELAYED", "EXECUTING", "WAITING"];
repeat(async () => {
  const status = page.querySelector(".rr-head > run-status")?.dataset.status;
  if (isOld || UNFINISHED.includes(status)) await show();
}, AT_LEAST_EVERY);
