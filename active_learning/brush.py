"""Masks as Label Studio's brush stores them: a bit stream of run lengths over RGBA values.

The layout is that of thi.ng/rle-pack (Apache-2.0), which the editor uses: 32 bits number of values,
5 bits word size - 1, four times 4 bits (run size - 1), then blocks. A block is one bit (1: a run of
one word, 0: as many different words), two bits that choose a run size, the length - 1 in that many
bits, and the words. Values are R, G, B, A of each pixel row by row; the alpha channel is the mask.
The SDK's own converter goes value by value; this one goes run by run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import LabelFormatError

_CHANNELS: Final = 4  # R, G, B, A
_INSIDE: Final = 255
_WORD_BITS: Final = 8
_RUN_BITS: Final = np.array([3, 4, 8, 16])  # what the editor itself writes
_LONGEST_RUN: Final = 1 << 16
_HEADER_BITS: Final = 32 + 5 + 4 * 4


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask as bytes of the bit stream.

    Args:
        mask: (H, W), anything but 0 is inside.

    Returns:
        Bytes as integers; the same for the same mask.
    """
    flat = np.asarray(mask, dtype=bool).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges]) if flat.size else np.empty(0, dtype=np.int64)
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    values = np.where(flat[starts], _INSIDE, 0)

    # A run too long for 16 bits goes on in the next block.
    blocks = -(-lengths // _LONGEST_RUN)
    values = np.repeat(values, blocks)
    last = np.cumsum(blocks) - 1
    whole = np.full(len(values), _LONGEST_RUN)
    whole[last] = lengths - (blocks - 1) * _LONGEST_RUN
    lengths = whole

    choice = np.searchsorted(1 << _RUN_BITS, lengths)  # the smallest size that holds the length
    sizes = _RUN_BITS[choice]
    codes = (((0b100 | choice) << sizes | (lengths - 1)) << _WORD_BITS) | values
    header = [(flat.size * _CHANNELS, 32), (_WORD_BITS - 1, 5), *((b - 1, 4) for b in _RUN_BITS)]
    return _pack(
        np.concatenate([[code for code, _ in header], codes]).astype(np.int64),
        np.concatenate([[width for _, width in header], 3 + sizes + _WORD_BITS]).astype(np.int64),
    )


def decode_brush(rle: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a bit stream; any pixel the brush touched is inside.

    Args:
        rle: bytes as integers, from `encode_brush`, the editor or the SDK.
        size: H, W in px.

    Returns:
        (H, W) bool.

    Raises:
        LabelFormatError: if the bytes are no such stream, or not one of that size.
    """
    height, width = size
    try:
        packed = np.asarray(rle, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise LabelFormatError("The brush mask is no list of bytes.") from exc
    if packed.ndim != 1 or ((packed < 0) | (packed > 255)).any():
        raise LabelFormatError("The brush mask is no list of bytes in 0 to 255.")
    bits = np.unpackbits(packed.astype(np.uint8))
    text = (bits + ord("0")).tobytes().decode("ascii")
    n = int(text[:32] or "0", 2)
    if len(text) < _HEADER_BITS or n != height * width * _CHANNELS:
        raise LabelFormatError(
            f"The brush mask has {n // _CHANNELS} pixels but the image has {height} × {width} = "
            f"{height * width}: the mask must be of the original size."
        )
    words = _words(text, bits, n)
    return words.reshape(height, width, _CHANNELS)[:, :, 3] > 0


def _pack(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> list[int]:
    """Numbers of so many bits each, one after the other, as bytes; zeros at the end."""
    owner = np.repeat(np.arange(len(codes)), widths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(widths) - widths, widths)
    bits = (codes[owner] >> (widths[owner] - 1 - place)) & 1
    packed: list[int] = np.packbits(bits.astype(np.uint8)).tolist()
    return packed


def _words(text: str, bits: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """The n words behind the header."""
    word_bits = int(text[32:37], 2) + 1
    run_bits = [int(text[at : at + 4], 2) + 1 for at in range(37, _HEADER_BITS, 4)]
    if word_bits != _WORD_BITS:
        raise LabelFormatError(f"The brush mask has words of {word_bits} bits; 8 are readable.")
    words = np.empty(n, dtype=np.uint8)
    at, done = _HEADER_BITS, 0
    while done < n:
        head = at + 3
        size = run_bits[int(text[at + 1 : head] or "0", 2)]
        length = int(text[head : head + size] or "0", 2) + 1
        is_run = text[at : at + 1] == "1"
        at = head + size
        end = at + (1 if is_run else length) * _WORD_BITS
        if end > len(text) or done + length > n:
            raise LabelFormatError(
                f"The brush mask is damaged: it ends after {done} of {n} values; draw it again."
            )
        block = np.packbits(bits[at:end])
        words[done : done + length] = block[0] if is_run else block
        at, done = end, done + length
    return words
