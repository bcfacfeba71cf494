"""Bootstrap: the demo's first policy and value model, trained from nothing (TS-LLM's first stage).

In reading order: ``config``, ``tokenizer``, ``walks`` (training text), ``tiny_llama`` (the network),
``policy`` (supervised training), ``sampling``, ``rollouts`` (samples and their targets), ``value``,
``checkpoints`` (Hugging Face directories), ``report``, ``run`` (all of it in order).
"""
