"""Test files of Triton kernels that also run as scripts: Triton reads TRITON_INTERPRET when it is imported."""

import json
import os
import subprocess
import sys
from typing import Any


def interpreted_by(file: str) -> Any:
    """What a file prints as JSON when it runs as a script, its kernels in Triton's interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", file], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)
