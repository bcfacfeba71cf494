from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from server_process import ServerProcess

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "api.md"


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_every_example_of_the_api_page_runs_as_it_stands(server: ServerProcess) -> None:
    examples = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = "\n".join(examples).replace("http://127.0.0.1:8000", server.url)
    script = script.replace("http://127.0.0.1:8001", server.admin_url)
    strict = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; echo; }\n'
    done = subprocess.run(["bash", "-c", strict + script], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.count('"object":"search"') >= 6
    assert "digraph tree" in done.stdout
    assert "event: search.completed" in done.stdout


@pytest.mark.vllm
def test_every_metric_of_a_real_server_is_in_the_docs(server: ServerProcess) -> None:
    page = (DOCS / "operations.md").read_text().partition("\n## Metrics\n")[2]
    names = re.findall(r"^# TYPE (\w+) ", httpx.get(f"{server.url}/metrics", timeout=10).text, re.MULTILINE)
    assert any(name.startswith("ramify_engine_policy_") for name in names)
    assert [name for name in names if not name.endswith("_created") and f"`{name}`" not in page] == []
