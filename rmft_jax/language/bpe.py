"""Byte-level byte-pair encoding: the tokenizers of SmolLM2, Llama 3 and Qwen, run by the package `tokenizers`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.packages import first_line, optional

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-bpe": _WORDS.replace("DIGITS", r"\p{N}{1,3}"), "qwen2": _WORDS.replace("DIGITS", r"\p{N}")}
"""Where text is split before it is encoded, by the name that GGUF has for it, beside "gpt-2" and "smollm"."""
_CONTROL, _USER_DEFINED = (2, 3), 4
"""Types of tokens in GGUF: unknown and control ones; ones added as they are."""


class ByteBPETokenizer:
    """A byte-level BPE tokenizer. Text is only text: what looks like a special token in it is spelt out."""

    vocab_size: int
    pad: int
    eos: int
    start: tuple[int, ...]
    ends: tuple[int, ...]

    def __init__(
        self, tokenizer: Any, *, eos: int, pad: int, source: str, start: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> None:
        """Wraps a `tokenizers.Tokenizer`.

        Args:
          tokenizer: it, which is changed: no padding, no truncation, no special tokens.
          eos: the token that ends a text.
          pad: the token that fills up; may be the same.
          source: where it comes from, for messages.
          start: tokens that stand before every text.
          ends: further tokens that end one.

        Raises:
          ConfigError: if it lacks a token for a printable ASCII character, or `eos` or `pad` are none of its tokens.
        """
        self._tokenizer, self._source, self.eos, self.pad = tokenizer, source, eos, pad
        self.start, self.ends = (*start,), (*ends,)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        for name, token in (
            ("eos", eos),
            ("pad", pad),
            *(("start", one) for one in start),
            *(("eos", one) for one in ends),
        ):
            ok = 0 <= token < self.vocab_size
            require(ok, f"{name}={token} in {source}", f"a token below {self.vocab_size}", "the files of one model")
        self._writable = {byte for byte, character in _byte_characters().items() if character in vocabulary}
        missing = sorted({10, *range(32, 127)} - self._writable)
        got = f"a vocabulary without {chr(missing[0])!r} in {source}" if missing else ""
        require(not missing, got, "a byte-level BPE with all of ASCII", "another model")

    @classmethod
    def from_json(
        cls, path: Path, *, eos: int | str, pad: int | str | None = None, ends: Sequence[int] = ()
    ) -> "ByteBPETokenizer":
        """Reads a `tokenizer.json`. What it puts before every text stands before every dialogue.

        Args:
          path: of the file.
          eos: the token that ends a text, or what is written for it.
          pad: the token that fills up, or what is written for it; that of `eos` if None.
          ends: further tokens that end a text.

        Raises:
          ConfigError: if the file is missing, damaged or no byte-level BPE, or the package `tokenizers` is missing.
        """
        tokenizers = optional("tokenizers", str(path))
        try:
            text = path.read_text(encoding="utf-8")
            described = json.loads(text)
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises bare exceptions
            message = (
                f"got {path}, need a tokenizer that can be read ({first_line(error)}); try the file of a whole model"
            )
            raise ConfigError(message) from error
        kind = described["model"].get("type")
        is_bytes = kind in (None, "BPE") and "ByteLevel" in _types(described.get("decoder"))
        require(is_bytes, f"{path} with a model of type {kind}", "a byte-level BPE", "a Llama 3, Qwen or SmolLM2 model")

        def token(name: str, value: int | str) -> int:
            found = tokenizer.token_to_id(value) if isinstance(value, str) else value
            require(found is not None, f"{name}={value!r} in {path}", "one of its tokens", "the files of one model")
            return found

        end, start = token("eos", eos), tokenizer.encode("").ids
        start = start if end not in start else []  # Some put both around a text.
        pad = end if pad is None else token("pad", pad)
        return cls(tokenizer, eos=end, pad=pad, source=str(path), start=start, ends=ends)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], source: str) -> "ByteBPETokenizer":
        """Makes the tokenizer whose vocabulary, merges and types of tokens stand in a GGUF file.

        Args:
          metadata: of the file.
          source: the file, for messages.

        Raises:
          ConfigError: if the tokenizer is no byte-level BPE, splits text in an unknown way, or does not fit together,
            or the package `tokenizers` is missing.
        """
        tokenizers = optional("tokenizers", source)
        kind = metadata.get("tokenizer.ggml.model")
        require(kind == "gpt2", f"{source} with a tokenizer {kind!r}", "a byte-level BPE, 'gpt2'", "another model")
        tokens, merges, types = (_list(metadata, key, source) for key in ("tokens", "merges", "token_type"))
        one_each = len(types) == len(tokens) == len(set(tokens)) and all(merge.count(" ") == 1 for merge in merges)
        got = f"{source} with {len(tokens)} tokens, {len(set(tokens))} of them different, and {len(types)} types"
        require(one_each, got, "different tokens, a type for each and merges of two", "to get it again")
        split = metadata.get("tokenizer.ggml.pre")
        vocabulary = {token: i for i, token in enumerate(tokens)}
        try:
            pairs = [tuple(merge.split(" ")) for merge in merges]
            model = tokenizers.models.BPE(vocabulary, pairs, ignore_merges=split == "llama-bpe")
        except Exception as error:  # `tokenizers` raises bare exceptions
            got = f"merges in {source} that do not fit ({first_line(error)})"
            message = f"got {got}, need merges of its tokens; try to get it again"
            raise ConfigError(message) from error
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = _splitter(tokenizers, split, source)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        if split == "qwen2":
            tokenizer.normalizer = tokenizers.normalizers.NFC()
        added = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in (*_CONTROL, _USER_DEFINED)]
        make = tokenizers.AddedToken
        tokenizer.add_special_tokens([make(token, normalized=False) for token, kind in added if kind in _CONTROL])
        tokenizer.add_tokens([make(token, normalized=False) for token, kind in added if kind == _USER_DEFINED])
        eos = metadata.get("tokenizer.ggml.eos_token_id")
        pad = metadata.get("tokenizer.ggml.padding_token_id", eos)
        bos = metadata.get("tokenizer.ggml.bos_token_id")
        begins = metadata.get("tokenizer.ggml.add_bos_token", split == "llama-bpe")
        start = [bos] if begins and isinstance(bos, int) else []
        whole = isinstance(eos, int) and isinstance(pad, int)
        require(whole, f"{source} with eos={eos!r} and pad={pad!r}", "the numbers of both tokens", "another model")
        return cls(tokenizer, eos=eos, pad=pad, source=source, start=start)  # pyright: ignore[reportArgumentType]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones.

        Raises:
          ConfigError: if it holds a character that the vocabulary has no bytes for.
        """
        try:
            odd = set(text.encode()) - self._writable
        except UnicodeEncodeError:  # half of a surrogate pair
            odd = {0}
        got = f"text with a character that the tokenizer of {self._source} cannot write"
        require(not odd, got, "text in its vocabulary", "plain words")
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens.

        Special tokens leave nothing behind, and neither do numbers from `vocab_size` on, which an embedding may have.

        Raises:
          ConfigError: if a number is negative.
        """
        require(all(token >= 0 for token in ids), "a negative token", "tokens from 0 on", "those of `encode`")
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)


def _byte_characters() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary: itself if it can be seen, else one moved."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(moved)}


def _types(described: Any) -> set[str]:
    """Types of a part of a `tokenizer.json`, or of the parts that it is a sequence of."""
    if not isinstance(described, dict):
        return set()
    parts = [part for value in described.values() if isinstance(value, list) for part in value]
    return {str(described.get("type"))}.union(*(_types(part) for part in parts))


def _list(metadata: Mapping[str, Any], key: str, source: str) -> list[Any]:
    found = metadata.get(f"tokenizer.ggml.{key}")
    kind = int if key == "token_type" else str
    ok = isinstance(found, list) and bool(found) and isinstance(found[0], kind)
    require(ok, f"{source} without tokenizer.ggml.{key}", "a file that holds its tokenizer", "another file")
    return found or []


def _splitter(tokenizers: Any, name: Any, source: str) -> Any:
    """What splits text before it is encoded."""
    parts = tokenizers.pre_tokenizers
    name = name if isinstance(name, str) else repr(name)
    if name in _SPLITS:
        split = parts.Split(tokenizers.Regex(_SPLITS[name]), "isolated")
        return parts.Sequence([split, parts.ByteLevel(add_prefix_space=False, use_regex=False)])
    known = ", ".join(["gpt-2", "smollm", *_SPLITS])
    require(
        name in {"gpt-2", "smollm"}, f"{source} with tokenizer.ggml.pre={name!r}", f"one of {known}", "another model"
    )
    words = parts.ByteLevel(add_prefix_space=False, use_regex=True)
    return parts.Sequence([parts.Digits(individual_digits=True), words]) if name == "smollm" else words
