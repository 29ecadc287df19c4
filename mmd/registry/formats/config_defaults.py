"""Default values for keys that a published config.json leaves out. Gemma 3's 4B does not even give its head count.

Source: the configuration classes of transformers 5, for model types whose published files omit something.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_WINDOW: Mapping[str, int | bool] = {"use_sliding_window": False, "max_window_layers": 28}

# By `model_type`. A key that is present and null keeps its null: it means "none" or "derived from other keys".
DEFAULTS: Mapping[str, Mapping[str, int | bool]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "gemma": {
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "_sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
    "cohere2": {"sliding_window": 4096, "_sliding_window_pattern": 4, "tie_word_embeddings": True},
    "qwen2": _NO_WINDOW,
    "qwen2_moe": _NO_WINDOW,
    "qwen2_vl": _NO_WINDOW,
    "qwen2_vl_text": _NO_WINDOW,
    "qwen2_5_vl": _NO_WINDOW,
    "qwen2_5_vl_text": _NO_WINDOW,
    "qwen3": _NO_WINDOW,
    "qwen3_moe": _NO_WINDOW,
}
