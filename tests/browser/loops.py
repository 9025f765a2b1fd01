"""Loops of client.js in a page, and what a worker would write for them."""

import json
from typing import Any

from playwright.sync_api import Page

from realtime_runs import auth
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.models import Run, StreamName
from tests.browser.conftest import until

MODULE = "/static/realtime_runs/client.js"
# loops[name].seen grows as the loop goes on, and its outcome says how it ended.
_LOOP = """async ([name, module, options]) => {
  globalThis.client = await import(module);
  if (options) client.configure(options);
  const stop = new AbortController();
  const signal = stop.signal;
  const loop = ((globalThis.loops ??= {})[name] = { seen: [], outcome: null, stop, pause: 0 });
  loop.source = SOURCE;
  (async () => {
    try {
      for await (const item of loop.source) {
        loop.seen.push(item);
        if (loop.pause) await new Promise((go) => { loop.go = go; setTimeout(go, loop.pause); });
      }
      loop.outcome = "end";
    } catch (error) {
      loop.outcome = `${error.name} ${error.code}: ${error.message}`;
    }
  })();
}"""


class Loop:
    """`for await (const item of SOURCE)` in a page. The source may use `client`, `signal` and `loop.pause` (ms)."""

    def __init__(
        self, page: Page, source: str, options: dict[str, Any] | None = None, *, name: str = "one", module: str = MODULE
    ) -> None:
        self.page = page
        self._name = f"loops['{name}']"
        page.evaluate(_LOOP.replace("SOURCE", source), [name, module, options])

    def get(self, expression: str) -> Any:
        """What an expression behind `loop.` gives."""
        return self.page.evaluate(f"{self._name}.{expression}")

    def set(self, expression: str) -> None:
        self.page.evaluate(f"() => {{ {self._name}.{expression} }}")

    def until(self, condition: str) -> None:
        until(self.page, f"{self._name}.{condition}")

    def seen(self) -> Any:
        return self.get("seen")

    def end(self) -> Any:
        """What it has seen, once it ended."""
        self.until("outcome !== null")
        assert self.get("outcome") == "end"
        return self.seen()

    def error(self) -> str:
        """How it failed: the name, the code and the message of the error."""
        self.until("outcome !== null")
        return str(self.get("outcome"))


def reading(**ids: Any) -> dict[str, Any]:
    """Options with a token that reads these runs or tags."""
    return {"accessToken": auth.create_public_token({"read": ids})}


def write(run_id: str, *chunks: Any, key: str = "out") -> None:
    append_all([Append(StreamName(run_id, "output", key), [json.dumps(one).encode() for one in chunks])])


def report(run_id: str, step: int) -> None:
    """A new version of the run."""
    Run.objects.filter(pk=run_id).touch(metadata=json.dumps({"step": step}))
