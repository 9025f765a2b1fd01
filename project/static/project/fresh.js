// The elements keep status, progress and streams up to date. What else the server has rendered of a run, marked with
// data-fresh or data-list, is fetched again when the run changes: the page in its newest state, of which only these parts
// are taken.

const AGO_MS = 10_000;
const PAUSE_MS = 500; // between two fetches, while a run changes quickly

// -- times, in the words and the zone of the reader

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

function ago(date) {
  const seconds = Math.min(0, (date - Date.now()) / 1000);
  const [unit, size] = UNITS.find(([, size]) => -seconds >= size) ?? UNITS.at(-1);
  return relative.format(Math.ceil(seconds / size), unit);
}

function showTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    time.title = exact.format(date);
    time.textContent = "ago" in time.dataset ? ago(date) : time.title;
  }
}

// -- parts of the page

let timer;

async function refresh() {
  timer = undefined;
  const answer = await fetch(location.href).catch(() => null);
  if (!answer?.ok) return; // the next change asks again
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-fresh]")) {
    const found = page.getElementById(old.id);
    if (found && found.innerHTML !== old.dataset.was) old.replaceChildren(...document.importNode(found, true).childNodes);
    if (found) old.dataset.was = found.innerHTML;
  }
  // A list keeps the items that it has, such as a stream that is being read; new ones come, and old ones go.
  for (const list of document.querySelectorAll("[data-list]")) {
    for (const [place, one] of [...(page.getElementById(list.id)?.children ?? [])].entries()) {
      if (!document.getElementById(one.id)) list.insertBefore(document.importNode(one, true), list.children[place] ?? null);
    }
    for (const old of [...list.children]) if (!page.getElementById(old.id)) old.remove();
  }
  showTimes();
}

addEventListener("run-change", () => (timer ??= setTimeout(refresh, PAUSE_MS)));
for (const part of document.querySelectorAll("[data-fresh]")) part.dataset.was = part.innerHTML;
showTimes();
setInterval(showTimes, AGO_MS);
