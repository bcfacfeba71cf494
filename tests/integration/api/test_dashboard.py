from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from server_process import ServerProcess

DASHBOARD = Path(__file__).parents[3] / "docker" / "grafana" / "dashboards" / "ramify.json"


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_real_server_has_every_figure_of_its_own_on_the_dashboard(server: ServerProcess) -> None:
    served = httpx.get(f"{server.url}/metrics", timeout=60).text
    shown = set(re.findall(r"\b(ramify_(?!trainer)\w+?)(?:_total|_bucket)?\b", DASHBOARD.read_text()))
    assert len(shown) >= 15
    of_a_value_model = {f"ramify_engine_value_{name}" for name in ("kv_usage", "running", "waiting")}
    assert {
        name for name in shown if not re.search(rf"^# TYPE {name}(_total)? ", served, re.MULTILINE)
    } == of_a_value_model  # the shipped release judges by a head on its policy's trunk
