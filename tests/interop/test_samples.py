"""Each js block of the how-to is a program that runs, and prints what its comments say: `console.log(…); // → text`."""

import subprocess

import pytest

from tests.conftest import ROOT
from tests.interop.conftest import HERE, environment_of_scripts
from tests.test_docs import blocks

SAMPLES = [block for block in blocks(ROOT / "docs/how-to/official-clients.md") if block.language == "js"]


def expected(code: str) -> list[str]:
    return [text for line in code.splitlines() if "// → " in line for text in line.split("// → ")[1].split(" → ")]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda block: f"line {block.line}")
def test_samples_of_the_how_to(sample, node, server):
    program = [node, "--input-type=module", "--eval", f"{sample.code}\nprocess.exit(0);"]
    done = subprocess.run(
        program, cwd=HERE, env=environment_of_scripts(server), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected(sample.code)
