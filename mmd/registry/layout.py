"""The layout of a model: the sizes of its parts, and what each layer caches per token, whichever engine serves it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers with equal caches. Widths are numbers per token and layer; the engine chooses the bits of a number."""

    count: int
    key_width: int = 0
    value_width: int = 0  # 0 if only keys are cached, as in multi-head latent attention
    window_tokens: int = 0  # attention is limited to the last tokens; 0 without a limit
    tokens_per_cell: int = 1  # more than 1 if several tokens are compressed into one
    per_slot: bool = False  # each slot has its own cache, even if the engine shares one cache among all slots
    convolution_numbers: int = 0  # per conversation, whatever its length
    state_numbers: int = 0  # per conversation, whatever its length


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of one model. The fields of weights, without `copied_bytes`, add up to all tensors of its files."""

    input_bytes: int  # embeddings, used for look-up only: llama.cpp leaves them in RAM
    repeating_bytes: int  # the layers without their routed experts
    expert_bytes: tuple[
        tuple[int, int], ...
    ]  # routed experts: (consecutive layers, bytes in each), from the first layer on
    output_bytes: int
    copied_bytes: (
        int  # the embeddings if they are also the output layer: a second copy if the two are on different devices
    )
    nextn_bytes: int  # layers that predict further tokens, loaded only for speculative decoding
    unloaded_bytes: int  # in the files, but no engine loads them
    float32_bytes: int  # of all weights; vLLM halves their bits
    rotation_bytes: int  # tables of rotary positions, which vLLM computes at load
    layer_count: int  # layers that every token passes
    hidden_size: int
    attention_heads: int
    attention_size: int  # numbers per token in attention: the queries of all heads and their results
    feed_forward_size: int  # numbers per token in a layer without experts; 0 if all layers have experts
    experts_used: int  # per token; 0 in a model without experts
    expert_size: int
    vocabulary_size: int
    caches: tuple[Layers, ...]
    embeddings_type: str = ""  # GGUF: the tensor type of the token embeddings; "" in a registry of an older version
    amx_bytes: int = 0  # GGUF: additional size of the weights when llama.cpp repacks them for AMX

    @property
    def loaded_bytes(self) -> int:
        """Return the size of the weights that an engine loads, each counted once."""
        return self.input_bytes + self.repeating_bytes + self.routed_bytes + self.output_bytes

    @property
    def routed_bytes(self) -> int:
        return sum(layers * size_bytes for layers, size_bytes in self.expert_bytes)
