// node run.mjs ./runs.mjs ./tokens.mjs: runs the checks of these scripts, a few at a time, and prints one JSON line for
// each: {"script", "check": its name, "problem": what went wrong, empty if nothing did}
import { checks } from "./checks.mjs";

const AT_ONCE = 4;
const LIMIT_MS = 40_000; // of one check: what hangs is told apart from what fails

for (const script of process.argv.slice(2)) {
  await import(script);
  for (const one of checks) one.script ??= script;
}

async function problemOf(fn) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`did not end within ${LIMIT_MS / 1000} s`)), LIMIT_MS);
  });
  try {
    await Promise.race([fn(), limit]);
    return "";
  } catch (error) {
    return String(error?.stack ?? error) + (error?.cause ? `\nbecause of ${error.cause?.stack ?? error.cause}` : "");
  } finally {
    clearTimeout(timer);
  }
}

async function work() {
  for (let next = checks.shift(); next; next = checks.shift()) {
    const problem = await problemOf(next.fn);
    process.stdout.write(JSON.stringify({ script: next.script, check: next.name, problem }) + "\n");
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, work));
process.exit(0); // subscriptions that nobody ends would keep the process
