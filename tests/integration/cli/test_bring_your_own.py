"""docs/bring-your-own.md, done as it stands: with small random models, on real vLLM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models import write_tiny_models
from ramify.weights import load_release
from server_process import ServerProcess, start

PAGE = (Path(__file__).parents[3] / "docs" / "bring-your-own.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader of the page, with a model of their own."""
    folder = tmp_path_factory.mktemp("own")
    models = write_tiny_models(folder / "made")
    models.policy.rename(folder / "my-policy")
    models.value.rename(folder / "my-value")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    command, _ = [line for line in PAGE.splitlines() if line.startswith("ramify serve --policy ")]
    server = start(folder, command.split()[2:], "--admin-port", "0")
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_commands_of_the_page_run_against_ones_own_models(server: ServerProcess, folder: Path) -> None:
    ramify = f'ramify() {{ "{sys.executable}" -m ramify "$@"; }}\n'
    strict = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; echo; }\n'
    script = strict + ramify + f"URL={server.url}\n" + "\n".join(blocks("sh"))
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert '"model":"my-model"' in done.stdout
    assert (folder / "first-look" / "results.md").is_file()


def test_the_releases_and_what_judges_them_are_made_as_the_page_says(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    from_policy, a_head, publishing = blocks("python")
    exec(publishing, {})
    release = load_release(folder / "weights" / "v000001")
    assert (release.manifest.name, release.manifest.default_max_tokens) == ("my-model", 200)
    exec(a_head, {})
    exec(publishing.replace('Path("my-value")', 'Path("my-head.safetensors")'), {})
    assert load_release(folder / "weights" / "v000002").manifest.value == "trunk"
    os.rename("my-value", "first-value")
    exec(from_policy, {})
    assert "LlamaForSequenceClassification" in (folder / "my-value" / "config.json").read_text()
