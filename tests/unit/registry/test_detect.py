"""Detection from content, with counter-examples for every rule that uses names."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest

from mmd.errors import BadModelFile, NotRunnable
from mmd.registry.detect import examine
from mmd.registry.record import Format, ModelType
from tests.tiny_models import gguf_header, sparse_gguf, tiny_embedding_gguf, tiny_gguf, tiny_safetensors

F32, F16, Q8_0, Q4_K, Q6_K, IQ1_S = 0, 1, 8, 12, 14, 19
POOLING_MODULES = json.dumps([{"idx": 1, "type": "sentence_transformers.models.Pooling"}])
CHAT = {"chat_template.jinja": "{{ messages }}"}
VISION = {"vision_config": {"hidden_size": 8}}


def test_tiny_llama_is_a_chat_model_with_exact_facts(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "a.gguf", name="Tiny A", n_layers=3)
    found = examine(path)
    facts = found.facts
    assert (found.path, found.files, found.projector) == (str(path), (str(path),), None)
    assert (facts.format, facts.type, facts.architecture) == (Format.GGUF, ModelType.CHAT, "llama")
    assert (facts.quant, facts.name, facts.context_length) == ("F32", "Tiny A", 2048)
    assert facts.weights_bytes == 4 * facts.parameters
    assert facts.kv_bytes_per_token == 3 * 2 * (16 + 16) * 2
    assert facts.chat_template


def test_pooling_makes_an_embedding_model(tmp_path: Path) -> None:
    assert examine(tiny_embedding_gguf(tmp_path / "e.gguf")).facts.type is ModelType.EMBEDDING


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"general.architecture": "llama"}, ModelType.COMPLETION),
        ({"general.architecture": "llama", "tokenizer.chat_template": "x"}, ModelType.CHAT),
        ({"general.architecture": "bert"}, ModelType.EMBEDDING),
        ({"general.architecture": "nomic-bert-moe"}, ModelType.EMBEDDING),
        ({"general.architecture": "gemma-embedding"}, ModelType.EMBEDDING),
        ({"general.architecture": "bert", "bert.pooling_type": 4}, ModelType.RERANKER),
        ({"general.architecture": "bert", "bert.classifier.output_labels": ["score"]}, ModelType.RERANKER),
        ({"general.architecture": "bert", "bert.classifier.output_labels": ["a", "b"]}, ModelType.CLASSIFIER),
        (
            {"general.architecture": "qwen3", "qwen3.pooling_type": 3, "tokenizer.chat_template": "x"},
            ModelType.EMBEDDING,
        ),
        ({"general.architecture": "llama", "llama.attention.causal": False}, ModelType.EMBEDDING),
        (
            {
                "general.architecture": "qwen3",
                "general.name": "Qwen3 Reranker",
                "tokenizer.chat_template": "x",
            },
            ModelType.RERANKER,
        ),
        # A word inside another word does not count.
        ({"general.architecture": "llama", "general.name": "Embedded Systems 7B"}, ModelType.COMPLETION),
    ],
)
def test_gguf_type(tmp_path: Path, metadata: dict[str, object], expected: ModelType) -> None:
    assert examine(sparse_gguf(tmp_path / "m.gguf", metadata=metadata)).facts.type is expected


def test_gguf_with_a_ranking_head_is_a_reranker(tmp_path: Path) -> None:
    path = sparse_gguf(tmp_path / "m.gguf", tensors={"cls.output.weight": ((32, 1), F32)})
    assert examine(path).facts.type is ModelType.RERANKER


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"general.type": "mmproj", "general.architecture": "clip"}, "projector"),
        ({"general.architecture": "clip"}, "projector"),
        ({"general.type": "adapter"}, "LoRA"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.architecture": "lumina2", "general.name": "Z-Image"}, "diffusion"),
        ({"general.architecture": "flux"}, "diffusion"),
        ({"general.architecture": "sdxl"}, "diffusion"),
        ({"general.architecture": "wan"}, "diffusion"),
        ({"general.architecture": "wavtokenizer-dec"}, "vocoder"),
    ],
)
def test_gguf_without_a_model_is_refused(tmp_path: Path, metadata: dict[str, object], reason: str) -> None:
    with pytest.raises(NotRunnable, match=reason) as caught:
        examine(sparse_gguf(tmp_path / "m.gguf", metadata=metadata))
    assert caught.value.hint


def test_vocabulary_only_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.gguf").write_bytes(gguf_header({"general.architecture": "llama"}))
    with pytest.raises(BadModelFile, match="no weights"):
        examine(tmp_path / "v.gguf")


# --- split files


def split(folder: Path, count: int, *, numbers: dict[int, int] | None = None) -> list[Path]:
    made = []
    for place in range(count):
        number = (numbers or {}).get(place, place)
        made.append(
            sparse_gguf(
                folder / f"big-Q8_0-{place + 1:05}-of-{count:05}.gguf",
                metadata={"split.count": count, "split.no": number},
                tensors={f"blk.{place}.w": ((32, 10), Q8_0)},
            )
        )
    return made


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_part_resolves_to_the_first(tmp_path: Path, given: int) -> None:
    files = split(tmp_path, 3)
    found = examine(files[given])
    assert found.path == str(files[0])
    assert found.files == tuple(map(str, files))
    assert found.facts.weights_bytes == 3 * 340


def test_folder_of_a_split_model_is_one_model(tmp_path: Path) -> None:
    files = split(tmp_path, 3)
    assert examine(tmp_path).files == tuple(map(str, files))


@pytest.mark.parametrize("gone", [0, 1])
def test_missing_part_is_named(tmp_path: Path, gone: int) -> None:
    files = split(tmp_path, 3)
    files[gone].unlink()
    for path in (files[2], tmp_path):
        with pytest.raises(BadModelFile, match=f"1 of 3 parts are missing: {files[gone].name}"):
            examine(path)


def test_renamed_parts_are_noticed(tmp_path: Path) -> None:
    files = split(tmp_path, 3, numbers={1: 2, 2: 1})
    with pytest.raises(BadModelFile, match="part 3, not 2"):
        examine(files[0])


# --- projectors


def projector(path: Path, *, width: int = 64, name: str = "") -> Path:
    metadata: dict[str, object] = {"general.architecture": "clip", "clip.vision.projection_dim": width}
    return sparse_gguf(path, metadata=metadata | ({"general.name": name} if name else {}))


def test_projector_beside_a_chat_model_makes_it_a_vision_model(tmp_path: Path) -> None:
    model, beside = tiny_gguf(tmp_path / "see-Q8_0.gguf"), projector(tmp_path / "mmproj-F16.gguf")
    for path in (model, tmp_path):
        found = examine(path)
        assert (found.path, found.projector, found.facts.type) == (str(model), str(beside), ModelType.VISION)


def test_folder_with_only_a_projector_is_refused(tmp_path: Path) -> None:
    projector(tmp_path / "mmproj.gguf")
    with pytest.raises(NotRunnable, match="projector"):
        examine(tmp_path)


def test_projector_of_another_width_is_ignored(tmp_path: Path) -> None:
    model = tiny_gguf(tmp_path / "a.gguf")
    projector(tmp_path / "mmproj.gguf", width=4096)
    assert examine(model).projector is None


def test_projector_among_several_models_goes_to_its_own(tmp_path: Path) -> None:
    text, seeing = (
        tiny_gguf(tmp_path / "text.gguf", name="text"),
        tiny_gguf(tmp_path / "s.gguf", name="seeing"),
    )
    beside = projector(tmp_path / "mmproj.gguf", name="seeing")
    assert examine(text).projector is None
    assert examine(seeing).projector == str(beside)


def test_damaged_file_beside_a_model_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert examine(tiny_gguf(tmp_path / "a.gguf")).facts.type is ModelType.CHAT


def test_folder_of_several_models_lists_them(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    tiny_gguf(folder / "a.gguf")
    tiny_gguf(folder / "b.gguf")
    with pytest.raises(NotRunnable, match=r"holds 2 models: a\.gguf, b\.gguf") as caught:
        examine(folder)
    assert f"mmd add '{folder}/a.gguf'" in caught.value.hint


# --- quantisation of GGUFs


@pytest.mark.parametrize(
    ("file_name", "file_type", "types", "expected"),
    [
        ("m.gguf", 15, {Q4_K: 86, Q6_K: 14}, "Q4_K_M"),
        ("m.gguf", 1024 + 15, {Q4_K: 86, Q6_K: 14}, "Q4_K_M"),  # llama.cpp guessed it
        ("m.gguf", 7, {Q8_0: 1}, "Q8_0"),
        ("m.gguf", 1, {F16: 1}, "F16"),
        # the label is too small for the tensors: the name is used if the tensors agree with it
        ("m-UD-Q4_K_XL.gguf", 15, {Q4_K: 60, Q6_K: 40}, "UD-Q4_K_XL"),
        ("m.gguf", 15, {Q4_K: 60, Q6_K: 40}, "Q4_K (5.33 bpw)"),
        ("m-UD-TQ1_0.gguf", 36, {IQ1_S: 90, Q4_K: 10}, "IQ1_S (1.86 bpw)"),
        ("m-Q4_K_M.gguf", 0, {Q8_0: 1}, "Q8_0 (8.50 bpw)"),
        ("m.gguf", 0, {F16: 1}, "F16"),
    ],
)
def test_gguf_quant(tmp_path: Path, file_name: str, file_type: int, types: dict[int, int], expected: str) -> None:
    tensors = {f"blk.{kind}.w": ((256, rows), kind) for kind, rows in types.items()}
    path = sparse_gguf(tmp_path / file_name, metadata={"general.file_type": file_type}, tensors=tensors)
    assert examine(path).facts.quant == expected


# --- keys and values per token


def layers(arch: str, **keys: object) -> dict[str, object]:
    return {
        "general.architecture": arch,
        **{f"{arch}.{key.replace('__', '.')}": value for key, value in keys.items()},
    }


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        # Qwen3-Coder-30B-A3B: 6144 MiB at 65,536 tokens (published)
        (
            layers(
                "qwen3moe",
                block_count=48,
                attention__head_count=32,
                attention__head_count_kv=4,
                attention__key_length=128,
                attention__value_length=128,
                embedding_length=2048,
            ),
            6144 * 2**20 // 65536,
        ),
        # no key_length: embedding length / heads; no head_count_kv: equals heads
        (
            layers("llama", block_count=32, attention__head_count=32, embedding_length=4096),
            32 * 32 * 2 * 128 * 2,
        ),
        # layers without attention have no cache
        (
            layers(
                "deci",
                block_count=4,
                attention__head_count=8,
                attention__head_count_kv=[8, 0, 8, 0],
                embedding_length=1024,
            ),
            2 * 8 * 2 * 128 * 2,
        ),
        # MLA: keys only, rank + rotary
        (
            layers(
                "deepseek2",
                block_count=61,
                attention__kv_lora_rank=512,
                rope__dimension_count=64,
                attention__head_count=128,
                embedding_length=7168,
            ),
            61 * 576 * 2,
        ),
        # hybrid: every fourth layer; the multi-token prediction layer does not count
        (
            layers(
                "qwen35",
                block_count=65,
                nextn_predict_layers=1,
                attention__head_count=24,
                attention__head_count_kv=4,
                attention__key_length=256,
                attention__value_length=256,
                embedding_length=5120,
            ),
            16 * 4 * 512 * 2,
        ),
        (layers("mamba2", block_count=48, embedding_length=2048), 0),
        (layers("bert", block_count=12, attention__head_count=12, embedding_length=384), 0),
    ],
)
def test_gguf_kv_bytes_per_token(tmp_path: Path, metadata: dict[str, object], expected: int) -> None:
    assert examine(sparse_gguf(tmp_path / "m.gguf", metadata=metadata)).facts.kv_bytes_per_token == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Qwen3-8B (published: 147,456)
        (
            {
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "hidden_size": 4096,
            },
            147_456,
        ),
        (
            {
                "model_type": "deepseek_v3",
                "num_hidden_layers": 61,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
                "num_attention_heads": 128,
                "hidden_size": 7168,
            },
            61 * 576 * 2,
        ),
        (
            {
                "text_config": {
                    "num_hidden_layers": 4,
                    "num_attention_heads": 8,
                    "hidden_size": 512,
                    "layer_types": [
                        "linear_attention",
                        "full_attention",
                        "sliding_attention",
                        "full_attention",
                    ],
                }
            },
            3 * 8 * 64 * 2 * 2,
        ),
        (
            {
                "model_type": "falcon",
                "multi_query": True,
                "num_hidden_layers": 32,
                "num_attention_heads": 71,
                "hidden_size": 4544,
            },
            32 * 64 * 2 * 2,
        ),
        (
            {
                "hybrid_override_pattern": "M-M*-M*",
                "num_hidden_layers": 7,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
            2 * 8 * 128 * 2 * 2,
        ),
        ({"model_type": "mamba2", "num_hidden_layers": 48, "hidden_size": 2048}, 0),
    ],
)
def test_config_kv_bytes_per_token(tmp_path: Path, config: dict[str, object], expected: int) -> None:
    folder = tiny_safetensors(tmp_path / "m", {"architectures": ["LlamaForCausalLM"], **config})
    assert examine(folder).facts.kv_bytes_per_token == expected


@pytest.mark.parametrize("count", [10**4 + 1, 2**31])
def test_impossible_layer_count_is_refused_without_allocation(tmp_path: Path, count: int) -> None:
    path = sparse_gguf(tmp_path / "m.gguf", metadata=layers("llama", block_count=count))
    folder = tiny_safetensors(tmp_path / "m", {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": count})
    for given in (path, folder):
        with pytest.raises(BadModelFile, match="layers"):
            examine(given)


# --- folders: the table of names that lie (vram.md, 8.3)


@pytest.mark.parametrize(
    ("repository", "config", "files", "expected"),
    [
        ("bge-m3", {"architectures": ["XLMRobertaModel"]}, {"modules.json": POOLING_MODULES}, "embedding"),
        ("multilingual-e5-large", {"architectures": ["XLMRobertaModel"]}, {}, "embedding"),
        (
            "e5-mistral-7b-instruct",
            {"architectures": ["MistralModel"]},
            {"1_Pooling/config.json": "{}"},
            "embedding",
        ),
        (
            "gte-Qwen2-7B-instruct",
            {"architectures": ["Qwen2ForCausalLM"]},
            {"modules.json": POOLING_MODULES, **CHAT},
            "embedding",
        ),
        (
            "ms-marco-MiniLM-L6-v2",
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
            {},
            "reranker",
        ),
        (
            "sentiment",
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "bad", "1": "good"}},
            {},
            "classifier",
        ),
        ("Qwen3-Reranker-0.6B", {"architectures": ["Qwen3ForCausalLM"]}, CHAT, "reranker"),
        (
            "renamed",
            {"architectures": ["Qwen3ForCausalLM"]},
            {"README.md": "---\nlicense: mit\npipeline_tag: text-ranking\n---\n", **CHAT},
            "reranker",
        ),
        (
            "gemma-3-4b-it",
            {"architectures": ["Gemma3ForConditionalGeneration"], **VISION},
            CHAT,
            "vision",
        ),
        ("gemma-3-1b-it", {"architectures": ["Gemma3ForCausalLM"]}, CHAT, "chat"),
        (
            "omni",
            {"architectures": ["QwenOmniForConditionalGeneration"], "thinker_config": VISION},
            CHAT,
            "vision",
        ),
        ("nomic-embed-vision-v1.5", {"architectures": ["NomicVisionModel"]}, {}, "embedding"),
        ("some-xl-vl-model", {"architectures": ["LlamaForCausalLM"]}, CHAT, "chat"),
        ("Llama-3.1-8B", {"architectures": ["LlamaForCausalLM"]}, {}, "completion"),
        (
            "Llama-3.1-8B-Instruct",
            {"architectures": ["LlamaForCausalLM"]},
            {"tokenizer_config.json": json.dumps({"chat_template": "x"})},
            "chat",
        ),
        ("reward", {"architectures": ["Qwen2ForRewardModel"]}, {}, "reranker"),
    ],
)
def test_folder_type(
    tmp_path: Path, repository: str, config: dict[str, object], files: dict[str, str], expected: str
) -> None:
    assert examine(tiny_safetensors(tmp_path / repository, config, files=files)).facts.type == expected


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, "bf16"),
        ({"quant_method": "awq", "bits": 4}, "awq-4bit"),
        ({"quant_method": "gptq", "bits": 4}, "gptq-4bit"),
        ({"quant_method": "auto-round", "bits": 4}, "auto-round-4bit"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-4bit"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "compressed-tensors-w4a16",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 8, "type": "float"},
                        "input_activations": {"num_bits": 8, "type": "float"},
                    }
                },
            },
            "compressed-tensors-fp8",
        ),
    ],
)
def test_folder_quant_is_read_from_the_configuration(tmp_path: Path, quantization: object, expected: str) -> None:
    # The name says AWQ, but cyankiwi/*-AWQ-4bit are compressed-tensors.
    config: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}
    if quantization:
        config["quantization_config"] = quantization
    assert examine(tiny_safetensors(tmp_path / "m-AWQ-4bit", config)).facts.quant == expected


def test_modelopt_quantisation_is_in_its_own_file(tmp_path: Path) -> None:
    files = {"hf_quant_config.json": json.dumps({"quantization": {"quant_algo": "NVFP4"}})}
    assert examine(tiny_safetensors(tmp_path / "m", files=files)).facts.quant == "nvfp4"


def test_packed_weights_count_as_parameters(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {"quant_method": "awq", "bits": 4},
    }
    found = examine(tiny_safetensors(tmp_path / "m", config, tensors={"qweight": ("I32", (100, 10))}))
    assert (found.facts.weights_bytes, found.facts.parameters) == (4000, 8000)


@pytest.mark.parametrize(
    ("config", "files", "reason"),
    [
        (
            {"architectures": ["LlamaForCausalLM"], "quantization": {"bits": 4, "group_size": 64}},
            {},
            "MLX",
        ),
        ({"quantization_config": {"quant_method": "exl2", "bits": 4.25}}, {}, "exl2"),
        ({"quantization_config": {"quant_method": "exl3", "bits": 3.0}}, {}, "exl3"),
        (
            {},
            {"adapter_config.json": '{"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}'},
            "LoRA adapter: a change to meta-llama/Llama-3.1-8B",
        ),
        ({}, {"model_index.json": "{}"}, "diffusers"),
        ({"architectures": ["YolosForObjectDetection"]}, {}, "YolosForObjectDetection"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, {}, "does not generate text"),
        (
            {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
            {},
            "speech",
        ),
        ({"model_type": "x"}, {}, "none"),
    ],
)
def test_unsupported_folder_is_refused(
    tmp_path: Path, config: dict[str, object], files: dict[str, str], reason: str
) -> None:
    folder = tiny_safetensors(tmp_path / "m", config or None, files=files)
    with pytest.raises(NotRunnable, match=reason) as caught:
        examine(folder)
    assert "\n" not in caught.value.message + caught.value.hint


def test_hub_snapshot_takes_the_repository_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen3-Reranker-0.6B" / "snapshots" / "abc123"
    tiny_safetensors(folder, {"architectures": ["Qwen3ForCausalLM"]}, files=CHAT)
    facts = examine(folder).facts
    assert (facts.name, facts.type) == ("Qwen3-Reranker-0.6B", ModelType.RERANKER)


def test_safetensors_file_resolves_to_its_folder(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    assert examine(folder / "model.safetensors").path == str(folder)
    (folder / "config.json").unlink()
    with pytest.raises(NotRunnable, match=r"config\.json"):
        examine(folder / "model.safetensors")
    with pytest.raises(NotRunnable, match=r"config\.json"):
        examine(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{", "\xff", '{"architectures": 3}', '{"architectures": ["AModel"], "head_dim": "x"}']
)
def test_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(BadModelFile, match=r"config\.json is damaged"):
        examine(folder)


# --- other files


def test_pickle_zip_onnx_and_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps({"w": 1}, protocol=2))
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("data.pkl", b"")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    for name, reason in (("a.bin", "pickle"), ("a.pt", "pickle"), ("a.onnx", "ONNX")):
        with pytest.raises(NotRunnable, match=reason):
            examine(tmp_path / name)
    (tmp_path / "notes.gguf").write_text("this is a text that calls itself a model\n" * 10)
    with pytest.raises(BadModelFile, match="is not a model"):
        examine(tmp_path / "notes.gguf")
    (tmp_path / "p.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadModelFile, match="Git LFS pointer"):
        examine(tmp_path / "p.gguf")


@pytest.mark.parametrize(("name", "reason"), [("m.onnx", "ONNX"), ("onnx/m.onnx", "ONNX"), ("m.bin", "pickle")])
def test_folder_of_other_weights_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(NotRunnable, match=reason):
        examine(tmp_path)


def test_empty_folder_and_missing_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotRunnable, match="no model"):
        examine(tmp_path)
    with pytest.raises(BadModelFile, match="No such file"):
        examine(tmp_path / "nothing.gguf")


def test_symbolic_links_keep_their_names(tmp_path: Path) -> None:
    blob = tiny_gguf(tmp_path / "0f3a")
    link = tmp_path / "snapshot" / "a.gguf"
    link.parent.mkdir()
    link.symlink_to(blob)
    assert examine(link).path == str(link)
