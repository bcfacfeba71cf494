"""Bootstrap: the demo's first policy and value model, trained from nothing (TS-LLM's first stage).

In reading order: ``config``, ``tokenizer``, ``walks`` (training text), ``posterior`` and ``soft_targets``
(what it teaches), ``tiny_llama`` (the network), ``policy`` (supervised training), ``sampling``, ``rollouts``
and ``collect`` (samples and their targets), ``verification`` and ``value``, ``checkpoints`` (Hugging Face
directories), ``report``, ``canary``, ``run`` (all of it in order).
"""
