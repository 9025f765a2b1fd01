/** Durations of runs that go on: counted on each second, and told when a run starts or ends. */

/** As the server says it. @param {number} milliseconds */
export function words(milliseconds) {
  const total = milliseconds / 1000;
  if (total < 10) return `${total.toFixed(2)} s`;
  if (total < 60) return `${total.toFixed(1)} s`;
  const minutes = Math.floor(total / 60);
  const pad = (value) => String(value).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${pad(Math.floor(total % 60))} s`;
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** @param {HTMLElement} element */
function show(element) {
  const { started, finished } = element.dataset;
  if (!started) return;
  const elapsed = (finished ? Date.parse(finished) : Date.now()) - Date.parse(started);
  const text = words(Math.max(0, elapsed));
  if (element.textContent !== text) element.textContent = text;
}

export function countDurations() {
  document.addEventListener("run-change", (event) => {
    const { id, startedAt, finishedAt } = event.detail ?? {};
    if (!id || !startedAt) return;
    for (const element of document.querySelectorAll(`.rr-duration[data-run="${CSS.escape(id)}"]`)) {
      element.dataset.started = startedAt;
      element.dataset.finished = finishedAt ?? "";
      show(element);
    }
  });
  setInterval(() => {
    for (const element of document.querySelectorAll('.rr-duration[data-finished=""]')) show(element);
  }, 1000);
}
