"""Write deploy/kubernetes: the Helm chart rendered for those who have no Helm. `make manifests`.

Needs requirements/deploy.lock, which `make test` installs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python

DEPLOY = Path(__file__).parents[1] / "deploy"
CHART = DEPLOY / "helm" / "ramify"
MANIFESTS: Mapping[str, Mapping[str, Any]] = {
    "ramify.yaml": {},
    "loop.yaml": {
        "replicas": 1,
        "front": {"replicas": 1},
        "weights": {"claim": "ramify-weights"},
        "trainer": {"enabled": True, "claim": "ramify-training"},
    },
}
"""The files, and the chart's values that each differs in."""
HEAD = """\
# Made from deploy/helm/ramify by `make manifests`; docs/kubernetes.md explains it.
#   kubectl create namespace ramify && kubectl apply -f {name}
"""


def rendered(values: Mapping[str, Any]) -> str:
    """Return the chart's manifests as one text. Raises `helm_python.HelmError` for values that the chart refuses."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(dict(values), name="ramify", namespace="ramify")
    return "".join(f"---\n{text.strip()}\n" for _, text in sorted(files.items()) if text.strip())


def main() -> int:
    folder = DEPLOY / "kubernetes"
    folder.mkdir(exist_ok=True)
    for name, values in MANIFESTS.items():
        (folder / name).write_text(HEAD.format(name=name) + rendered(values), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
