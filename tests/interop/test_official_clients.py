"""The official packages from npm at our servers. Each check of scripts/*.mjs is a test here, and so is each sample of the
how-to.
"""

import subprocess
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, SERVERS, WebServer
from tests.interop.conftest import HERE, checks_of, environment_of_scripts
from tests.test_docs import blocks

ON_BOTH = ("streams.mjs", "subscriptions.mjs")  # long polls and bodies in pieces end differently on each
ON_ONE = ("batches.mjs", "piping.mjs", "runs.mjs", "tokens.mjs", "triggering.mjs", "waiting.mjs")
IN_A_PAGE = ("pages.mjs",)  # of another origin, whose fetch keeps the rules of CORS
SAMPLES = [block for block in blocks(ROOT / "docs/how-to/official-clients.md") if block.language == "js"]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, node: str, serve_module: Callable[..., WebServer]) -> WebServer:
    return serve_module(request.param)


# Uvicorn, because Daphne hands a request on when it is complete, and piping.mjs looks at one that is not.
with_uvicorn = pytest.mark.parametrize("server", ["uvicorn"], indirect=True)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize(("script", "check"), checks_of(ON_BOTH))
def test_streams_and_subscriptions(script, check, passes):
    passes(ON_BOTH, script, check)


@with_uvicorn
@pytest.mark.parametrize(("script", "check"), checks_of(ON_ONE))
def test_triggering_looking_and_waiting(script, check, passes):
    passes(ON_ONE, script, check)


@with_uvicorn
@pytest.mark.parametrize(("script", "check"), checks_of(IN_A_PAGE))
def test_react_hooks(script, check, passes):
    passes(IN_A_PAGE, script, check)


def expected(code: str) -> list[str]:
    return [text for line in code.splitlines() if "// → " in line for text in line.split("// → ")[1].split(" → ")]


@with_uvicorn
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda block: f"line {block.line}")
def test_samples_of_the_how_to(sample, node, server):
    """Each js block is a program that runs, and prints what its comments say: `console.log(…); // → text`."""
    program = [node, "--input-type=module", "--eval", f"{sample.code}\nprocess.exit(0);"]
    done = subprocess.run(
        program, cwd=HERE, env=environment_of_scripts(server), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected(sample.code)
