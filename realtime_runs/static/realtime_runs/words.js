/** Runs in words and figures: the same as `realtime_runs.display` says on the server. */

/** The statuses that nothing leaves. */
export const FINAL = new Set(["COMPLETED", "CANCELED", "FAILED", "CRASHED", "SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT"]);

/** @param {string} status */
export const label = (status) =>
  status.toLowerCase().replace(/_/g, " ").replace(/\b[a-z]/g, (letter) => letter.toUpperCase());

const number = (value) => (typeof value === "number" && Math.abs(value) < 1e15 ? value : null);
const amount = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 10 });
export const count = (value) => value.toLocaleString("en-US");
const clamp = (value) => Math.min(Math.max(value, 0), 100);

/**
 * How far a run is by its metadata; null when it does not say so in a form that is understood.
 * @param {Record<string, any>} metadata
 * @returns {{percentage: number, text: string} | null}
 */
export function readProgress(metadata) {
  const progress = metadata.progress;
  if (progress !== null && typeof progress === "object" && !Array.isArray(progress)) {
    const [current, total] = [number(progress.current), number(progress.total)];
    const percentage = number(progress.percentage);
    if (current === null || total === null || total <= 0) {
      return percentage === null ? null : { percentage: clamp(percentage), text: "" };
    }
    return {
      percentage: clamp(percentage ?? (100 * current) / total),
      text: `${amount(current)} of ${amount(total)}`,
    };
  }
  const value = number(progress);
  return value === null ? null : { percentage: clamp(value > 1 ? value : 100 * value), text: "" };
}

/** What a run says about itself. @param {Record<string, any>} metadata */
export function readNote(metadata) {
  const note = "status" in metadata ? metadata.status : metadata.progress?.currentItem;
  if (typeof note !== "string") return "";
  return note.length > 200 ? `${note.slice(0, 199)}…` : note;
}
