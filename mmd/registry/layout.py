"""What a model keeps in memory, whichever engine serves it: its weights by where they lie, and what every layer keeps
of what it has read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that keep the same. Widths are numbers per token and layer; whoever serves them chooses the bits."""

    count: int
    key_width: int = 0
    value_width: int = 0  # 0 where only keys are kept: in multi-head latent attention
    window_tokens: int = 0  # only as many of the last tokens are looked at; 0 where all are
    tokens_per_cell: int = 1  # more where several tokens are compressed into one
    per_slot: bool = False  # every conversation has a cache of its own, though the engine shares one among the others
    convolution_numbers: int = 0  # per conversation, whatever its length
    state_numbers: int = 0  # likewise


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of one model. The weights' fields together are all tensors of its files, `copied_bytes` apart."""

    input_bytes: int  # embeddings that are looked up and not multiplied: llama.cpp leaves them in RAM
    repeating_bytes: int  # the layers, without their routed experts
    expert_bytes: tuple[tuple[int, int], ...]  # routed: (layers in a row, bytes in each), from the first on
    output_bytes: int
    copied_bytes: int  # the embeddings, where they are the output layer too: a second copy where those lie apart
    nextn_bytes: int  # layers that predict further tokens, loaded only by who speculates with them
    unloaded_bytes: int  # in the files, and loaded by nobody
    float32_bytes: int  # of all weights; vLLM keeps these with half as many bits
    rotation_bytes: int  # tables of rotary positions, which vLLM makes when it loads
    layer_count: int  # that every token passes
    hidden_size: int
    attention_heads: int
    attention_size: int  # numbers that one token has in attention: all heads' queries, and what they find
    feed_forward_size: int  # that it has in the feed-forward part of a layer without experts; 0 where all have some
    experts_used: int  # for one token; 0 in a model without
    expert_size: int
    vocabulary_size: int
    caches: tuple[Layers, ...]
    embeddings_type: str = ""  # GGUF: the tensor type of the token embeddings; "" in a registry of an older version
    amx_bytes: int = 0  # GGUF: what the weights take beyond their size when llama.cpp lays them out for AMX

    @property
    def loaded_bytes(self) -> int:
        """The weights that an engine needs, each once."""
        return self.input_bytes + self.repeating_bytes + self.routed_bytes + self.output_bytes

    @property
    def routed_bytes(self) -> int:
        return sum(layers * size_bytes for layers, size_bytes in self.expert_bytes)
