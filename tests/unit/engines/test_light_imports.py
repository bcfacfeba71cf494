from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_imports_neither_vllm_nor_torch() -> None:
    check = (
        "import sys, ramify.engines; "
        "print([m for m in ('vllm', 'torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
