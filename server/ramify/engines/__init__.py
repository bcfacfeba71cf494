"""The policy and the scorer of a search on vLLM engines.

From the bottom up; a module imports only those above it:

| module | what it is |
|---|---|
| `errors` | the exception family |
| `config` | `EngineConfig`: what engines are started with; `Serving`: the release that they serve |
| `model_folders` | checks of a model's files before anything starts |
| `ports` | `Engine`: one running engine, as everything but `vllm` sees it |
| `http` | another server: its address, its key, and its failures that may pass |
| `leases` | the release served, and older ones that work under way still uses |
| `limiter` | bounded concurrency in front of an engine |
| `tokenizer` | prompts to token ids, token ids to text, stop strings to stop tokens |
| `formats` | the input of a model that judges: its template, its tags, its tokens |
| `judges` | checks of a model that judges, and how its judgement is read |
| `scorer` | `search.protocols.Scorer` on an engine |
| `remote` | the same on another server, over HTTP |
| `policy` | `search.protocols.Policy` on an engine |
| `policy_server` | the vLLM server that has the policy: requests, streams, deadlines, errors |
| `measurement` | log-probabilities and values of given texts, for the canary of a reload |
| `progress` | what a start waits for, on standard error |
| `start` | from a configuration to running engines, side by side, and their end if the start is given up |
| `warm_up` | the first draws of a policy's engine: how long its steps take |
| `scoring` | the scorers of the settings, by name, put on their engines |
| `remote_engine` | the port on a policy's server, and what is checked of it at the start |
| `remote_openai` | plain completions by that server's own OpenAI routes |
| `others` | the policies that searches may name beside the one served |
| `vllm` | the only door to vLLM |
| `engines` | `Engines`: all of it together |
| `offline` | answers of a model that is not served, by an engine in a process of its own |

Importing this package imports neither vLLM nor torch.
"""

from ramify.engine_options import EngineOptions, OtherPolicyOptions, PolicyServerOptions, ScorerOptions
from ramify.engines.config import EngineConfig, OtherPolicy, Serving
from ramify.engines.engines import Engines
from ramify.engines.errors import (
    EngineBusy,
    EngineError,
    EngineStartFailed,
    PolicyUnreachable,
    RequestRefused,
    ScorerUnreachable,
)
from ramify.engines.leases import require_servable
from ramify.engines.measurement import Measurement, Text, long_text
from ramify.engines.others import NamedPolicy
from ramify.engines.ports import RawSample, SampleParams, SampleRequest
from ramify.engines.scorer import ScorerFactory
from ramify.engines.tokenizer import Tokenizer

__all__ = [
    "EngineBusy",
    "EngineConfig",
    "EngineError",
    "EngineOptions",
    "EngineStartFailed",
    "Engines",
    "Measurement",
    "NamedPolicy",
    "OtherPolicy",
    "OtherPolicyOptions",
    "PolicyServerOptions",
    "PolicyUnreachable",
    "RawSample",
    "RequestRefused",
    "SampleParams",
    "SampleRequest",
    "ScorerFactory",
    "ScorerOptions",
    "ScorerUnreachable",
    "Serving",
    "Text",
    "Tokenizer",
    "long_text",
    "require_servable",
]
