"""Read GGUF and safetensors headers: type, quantisation, layout."""
