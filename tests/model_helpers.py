"""Small models with random weights: llama.cpp runs them as it runs any other; what they say makes no sense."""

from pathlib import Path

import gguf
import numpy as np

from trustmine.resources import built_in_model

# A model of this shape reads a prompt of a thousand tokens in a fraction of a second on one core.
N_TOKENS, N_LAYERS, WIDTH, N_HEADS, INNER = 2048, 1, 64, 1, 64


def write_small_model(path: Path, seed: int = 1) -> None:
    """A GGUF file with the vocabulary and chat template of the built-in model, and attention."""
    model = _Model(path, "llama", seed)
    model.writer.add_feed_forward_length(INNER)
    model.writer.add_head_count(N_HEADS)
    model.writer.add_head_count_kv(N_HEADS)
    model.writer.add_rope_dimension_count(WIDTH // N_HEADS)
    for n in range(N_LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            model.fill(f"blk.{n}.{part}.weight", 1.0, WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.random(f"blk.{n}.{part}.weight", WIDTH, WIDTH)
        model.random(f"blk.{n}.ffn_gate.weight", INNER, WIDTH)
        model.random(f"blk.{n}.ffn_up.weight", INNER, WIDTH)
        model.random(f"blk.{n}.ffn_down.weight", WIDTH, INNER)
    model.close()


def write_recurrent_model(path: Path, seed: int = 1) -> None:
    """A GGUF file with the vocabulary and chat template of the built-in model, and a recurrent state (Mamba)."""
    inner, n_state, kernel, rank = 2 * WIDTH, 16, 4, 8
    model = _Model(path, "mamba", seed)
    model.writer.add_feed_forward_length(0)
    model.writer.add_head_count(0)
    model.writer.add_ssm_conv_kernel(kernel)
    model.writer.add_ssm_inner_size(inner)
    model.writer.add_ssm_state_size(n_state)
    model.writer.add_ssm_time_step_rank(rank)
    for n in range(N_LAYERS):
        model.fill(f"blk.{n}.attn_norm.weight", 1.0, WIDTH)
        model.random(f"blk.{n}.ssm_in.weight", 2 * inner, WIDTH)
        model.random(f"blk.{n}.ssm_conv1d.weight", inner, kernel, kind=np.float32)
        model.fill(f"blk.{n}.ssm_conv1d.bias", 0.0, inner)
        model.random(f"blk.{n}.ssm_x.weight", rank + 2 * n_state, inner)
        model.random(f"blk.{n}.ssm_dt.weight", inner, rank)
        model.fill(f"blk.{n}.ssm_dt.bias", -2.0, inner)
        model.fill(f"blk.{n}.ssm_a", -0.1, inner, n_state)  # what was read fades slowly
        model.fill(f"blk.{n}.ssm_d", 1.0, inner)
        model.random(f"blk.{n}.ssm_out.weight", WIDTH, inner)
    model.close()


class _Model:
    """A file in the making: all but what the architecture is."""

    def __init__(self, path: Path, architecture: str, seed: int) -> None:
        known = {name: field.contents() for name, field in gguf.GGUFReader(built_in_model()).fields.items()}
        tokens = known["tokenizer.ggml.tokens"][:N_TOKENS]
        merges = [pair for pair in known["tokenizer.ggml.merges"] if pair.replace(" ", "") in set(tokens)]
        self.writer = writer = gguf.GGUFWriter(path, architecture)
        writer.add_tokenizer_model(known["tokenizer.ggml.model"])
        writer.add_tokenizer_pre(known["tokenizer.ggml.pre"])
        writer.add_token_list(tokens)
        writer.add_token_types(known["tokenizer.ggml.token_type"][:N_TOKENS])
        writer.add_token_merges(merges)
        for name, number in known.items():
            if name.endswith("_token_id"):
                writer.add_key_value(name, number, gguf.GGUFValueType.UINT32)
        writer.add_add_bos_token(False)
        writer.add_chat_template(known["tokenizer.chat_template"])
        writer.add_name("Random")
        writer.add_context_length(8192)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(N_LAYERS)
        writer.add_layer_norm_rms_eps(1e-5)
        self._random = np.random.default_rng(seed)
        self.random("token_embd.weight", N_TOKENS, WIDTH)
        self.fill("output_norm.weight", 1.0, WIDTH)

    def random(self, name: str, *shape: int, kind: type = np.float16) -> None:
        self.writer.add_tensor(name, (self._random.standard_normal(shape) / np.sqrt(shape[-1])).astype(kind))

    def fill(self, name: str, value: float, *shape: int) -> None:
        self.writer.add_tensor(name, np.full(shape, value, np.float32))

    def close(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
