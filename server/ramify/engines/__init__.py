"""The policy and the scorer of a search on vLLM engines.

| module | what it is |
|---|---|
| `errors` | the exception family |
| `config` | `EngineConfig`: what engines are started with |
| `checkpoints` | checks of a model's files before anything starts |
| `start` | from a configuration to running engines, side by side, and their end if the start is given up |
| `progress` | what a start waits for, on standard error |
| `tokenizer` | prompts to token ids, token ids to text, stop strings to stop tokens |
| `ports` | one running engine, as everything but `vllm/` sees it |
| `limiter` | bounded concurrency in front of an engine |
| `policy`, `scorer` | the two Protocols of `ramify.search` |
| `measurement` | log-probabilities and values of given texts, for the canary of a reload |
| `engines` | `Engines`: all of it together |
| `vllm/` | the only door to vLLM |

Importing this package imports neither vLLM nor torch.
"""

from ramify.engines.config import EngineConfig, Serving
from ramify.engines.engines import Engines
from ramify.engines.errors import (
    EngineBusy,
    EngineError,
    EngineStartFailed,
    EngineStuck,
    RequestRefused,
)
from ramify.engines.measurement import Measurement, Text, long_text
from ramify.engines.ports import RawSample, SampleParams, SampleRequest
from ramify.engines.tokenizer import Tokenizer

__all__ = [
    "EngineBusy",
    "EngineConfig",
    "EngineError",
    "EngineStartFailed",
    "EngineStuck",
    "Engines",
    "Measurement",
    "RawSample",
    "RequestRefused",
    "SampleParams",
    "SampleRequest",
    "Serving",
    "Text",
    "Tokenizer",
    "long_text",
]
