"""The policy and the scorer of a search on vLLM engines.

| module | what it is |
|---|---|
| `config` | `EngineConfig`: what engines are started with |
| `checkpoints` | whether a checkpoint can be served, found out before anything starts |
| `launch`, `environment` | from a configuration to an engine's arguments and its processes' environment |
| `tokenizer`, `decoding`, `stops` | prompts to token ids, token ids to text, stop strings to stop tokens |
| `admission` | bounded concurrency in front of an engine |
| `starting`, `backend` | vLLM: its start and its requests |
| `core_process`, `scheduling` | what runs inside its processes |
| `building` | both starts side by side, and their end where they are given up |
| `policy`, `scorer` | the two Protocols of `ramify.search` |
| `openai_serving` | plain completions by vLLM's own OpenAI serving classes |
| `chains` | sequences of which some begin others, judged in one pass |
| `measuring` | log-probabilities and values of given texts, for the canary of a reload |
| `recording`, `replay` | engine requests kept and sent again, for `ramify bench` |
| `engines` | `Engines`: all of it together |
| `errors` | the exception family |

Importing this package imports neither vLLM nor torch.
"""

from ramify.engines.config import EngineConfig
from ramify.engines.engines import Engines
from ramify.engines.errors import (
    BadModel,
    BadScores,
    EngineBusy,
    EngineError,
    EngineStartFailed,
    EngineStuck,
    ReloadFailed,
    RequestRefused,
)
from ramify.engines.measuring import Measurement, Text, long_text
from ramify.engines.recording import EngineRequest, Replay
from ramify.engines.tokenizer import Tokenizer

__all__ = [
    "BadModel",
    "BadScores",
    "EngineBusy",
    "EngineConfig",
    "EngineError",
    "EngineRequest",
    "EngineStartFailed",
    "EngineStuck",
    "Engines",
    "Measurement",
    "ReloadFailed",
    "Replay",
    "RequestRefused",
    "Text",
    "Tokenizer",
    "long_text",
]
