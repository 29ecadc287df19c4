"""Detect the type of a safetensors model from marker files, config.json and architecture, in this order."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

from mmd.errors import NotRunnable
from mmd.registry.formats.chat_template import has_chat_template
from mmd.registry.formats.folder import Config, front_matter, pools_sentences, read_config, repository_name, search_hint
from mmd.registry.formats.gguf_type import generative_type
from mmd.registry.formats.quant import quantization_of
from mmd.registry.record import ModelType

# The suffixes are vLLM's (vllm/config/model.py, _SUFFIX_TO_DEFAULTS).
_GENERATES = re.compile(r"\w*(ForCausalLM|ForConditionalGeneration|ChatModel|LMHeadModel)")
_CLASSIFIES = re.compile(
    r"\w*(ForSequenceClassification|ForTokenClassification|ForImageClassification|ClassificationModel)"
)
_EMBEDS = re.compile(r"\w*(ForTextEncoding|EmbeddingModel|Model)")
_SPEECH = re.compile(r"whisper|wav2vec2|hubert|speecht5|vits|bark|musicgen|encodec")
_ENCODERS = re.compile(r"[\w-]*(bert|roberta|electra|mpnet)[\w-]*|new", re.IGNORECASE)

_CARD_TYPES = {
    "text-ranking": ModelType.RERANKER,
    "feature-extraction": ModelType.EMBEDDING,
    "sentence-similarity": ModelType.EMBEDDING,
    "text-classification": ModelType.CLASSIFIER,
}


def refuse_other_formats(folder: Path) -> None:
    """Raise NotRunnable for folders that mmd's engines cannot serve."""
    if (folder / "adapter_config.json").exists():
        base = read_config(folder, "adapter_config.json").text("base_model_name_or_path")
        raise NotRunnable(
            f"{folder} is a LoRA adapter: a change to {base or 'another model'}, not a model by itself",
            hint=f"hf download {quote(base or 'REPO')}   # its base model; then: mmd add",
        )
    if (folder / "model_index.json").exists():
        raise NotRunnable(
            f"{folder} is a diffusers pipeline: it makes images, video or sound, not text",
            hint="mmd list   # shows the models that run here; this one is for diffusers or ComfyUI",
        )
    if not any(folder.glob("*.safetensors")):
        _refuse_other_weights(folder)
    _refuse_other_quantizations(read_config(folder))


def _refuse_other_weights(folder: Path) -> None:
    if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
        raise NotRunnable(
            f"{folder} holds ONNX weights, which no engine of mmd serves",
            hint=search_hint(repository_name(folder)),
        )
    pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern)]
    if pickles:
        raise NotRunnable(
            f"{folder} holds pickle files ({pickles[0]}), which can run any code when loaded",
            hint=search_hint(repository_name(folder)),
        )


def _refuse_other_quantizations(config: Config) -> None:
    quantization = quantization_of(config)
    method = quantization.text("quant_method").lower()
    original = search_hint(repository_name(config.path.parent))
    if method in ("exl2", "exl3"):
        raise NotRunnable(
            f"{config.path.parent} is quantised for ExLlama ({method}), which mmd does not support",
            hint=original,
        )
    # MLX writes a section `quantization` and repeats it as a quantization_config without a method.
    own = config.section("quantization")
    if not method and "bits" in own.data and "group_size" in own.data:
        raise NotRunnable(
            f"{config.path.parent} is quantised for MLX (Apple silicon); no engine of mmd can load it",
            hint=original,
        )


def folder_type(folder: Path, config: Config) -> ModelType:
    if _is_cross_encoder(folder, config):
        return ModelType.RERANKER
    if pools_sentences(folder):
        # Sentence-transformers, even if the architecture is a ForCausalLM (gte-Qwen2-7B-instruct).
        return ModelType.EMBEDDING
    architecture = next(iter(config.texts("architectures")), "")
    if _SPEECH.match(config.text("model_type")):
        raise NotRunnable(
            f"{folder} is a speech or sound model ({architecture}), which mmd does not serve",
            hint="mmd list   # shows the models that run here",
        )
    if _CLASSIFIES.fullmatch(architecture):
        return _classifier_type(config)
    if architecture.endswith("RewardModel"):
        return ModelType.RERANKER
    if _GENERATES.fullmatch(architecture):
        return _generative_type(folder, config)
    if _EMBEDS.fullmatch(architecture):
        return ModelType.EMBEDDING
    raise NotRunnable(
        f"{folder} has the architecture {architecture or '(none)'}, which does not generate text, embed or rank",
        hint=f"cat {quote(str(config.path))}   # shows the content",
    )


def _is_cross_encoder(folder: Path, config: Config) -> bool:
    if read_config(folder, "config_sentence_transformers.json").text("model_type") == "CrossEncoder":
        return True
    # sentence-transformers 4 and later leave this section only in cross-encoders.
    return "activation_fn" in config.section("sentence_transformers").data


def _classifier_type(config: Config) -> ModelType:
    """One label means one score: a reranker. Without `num_labels`, transformers uses the length of id2label."""
    labels = config.integer("num_labels")
    if labels is None and config.data.get("id2label"):
        labels = len(config.section("id2label").data)
    return ModelType.RERANKER if labels == 1 else ModelType.CLASSIFIER


def _generative_type(folder: Path, config: Config) -> ModelType:
    card = _CARD_TYPES.get(front_matter(folder, "pipeline_tag"))
    if card:
        return card
    chat_template = has_chat_template(folder)
    kind = generative_type(
        names=f"{config.text('_name_or_path').rpartition('/')[2]} {repository_name(folder)}",
        chat_template=chat_template,
    )
    if kind in (ModelType.CHAT, ModelType.COMPLETION) and config.has("vision_config"):
        return ModelType.VISION
    return kind


def is_encoder(config: Config) -> bool:
    """True if the model reads a text in one pass and needs no cache."""
    return bool(_ENCODERS.fullmatch(config.text("model_type"))) and not config.flag("is_decoder")
