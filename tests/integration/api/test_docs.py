from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from server_process import ServerProcess

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


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
