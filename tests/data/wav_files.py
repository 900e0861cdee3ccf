"""Wav files written by the standard library, or byte by byte."""

import struct
import wave

import numpy as np

SECOND = 16000


def write(path, samples, rate=16000, width=2):
    """Integer samples (N,) or (N, channels), by the standard library; 8 bits are unsigned in the file."""
    samples = np.asarray(samples, np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = samples.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width]  # the lowest bytes come first
    with wave.open(str(path), "wb") as file:
        file.setparams((samples[0].size, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(data.tobytes())


def riff(form=None, samples=b"", **sizes):
    """A wav file by hand; its fmt chunk's fields are type, channels, rate, bytes per second, bytes per frame, bits."""
    form = struct.pack("<HHIIHH", *(form or (1, 1, 16000, 32000, 2, 16)))
    data = struct.pack("<4sI", b"data", sizes.get("data", len(samples))) + samples
    chunks = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + data
    return b"RIFF" + struct.pack("<I", sizes.get("riff", len(chunks))) + chunks


def content(i, length=SECOND):
    return np.random.default_rng(i).integers(-3000, 3000, length)
