/** The overview: renewed in place every five seconds. */

import { renew, repeat } from "./morph.js";

const page = document.getElementById("rr-live");
const url = new URL(location.href);
url.searchParams.set("part", "");
repeat(() => renew(page, url), 5000);
