"""The speech encoder of src/models/speech_encoder.h, written the plain PyTorch way.

Built by the `model` section of a run's YAML, as reference_lm.py's model is, and of its blocks.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

import reference_lm as lm


def padding_offsets(lengths, seq_len):
    """[B, 1, 1, T]: 0 for the keys of each sequence, -inf for the padding behind them."""
    is_padding = torch.arange(seq_len) >= lengths[:, None]
    return torch.zeros(is_padding.shape).masked_fill(is_padding, float("-inf"))[:, None, None]


def sinusoids(positions, width):
    """[..., C] of Vaswani et al. (2017) at real positions, all sines before all cosines."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = positions[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SpeechEncoder(nn.Module):
    def __init__(self, model, seq_len, vocab_size):
        super().__init__()
        speech, width = model["speech"], model["width"]
        model = model | {"seq_len": seq_len}
        self.kernel, self.stride = speech["kernel"], speech["stride"]
        self.bins, self.width = speech["mel_bins"], width
        # Our weight's columns are (frame of the window, bin).
        self.convolution = nn.Linear(self.kernel * self.bins, 2 * width)
        self.has_sinusoids = model["position"]["kind"] in ("sincos", "cape")
        self.layers = nn.ModuleList(lm.Block(model) for _ in range(model["layers"]))
        self.final_norm = nn.Identity()
        if model["norm"]["structure"] != "post":
            self.final_norm = lm.make_norm(model["norm"], width)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, features, feature_lengths, positions):
        """[B, frames, bins], [B], [B, T] -> logits [B, T, V] and the lengths in T."""
        frame_lengths = (feature_lengths + self.stride - 1) // self.stride
        weight = self.convolution.weight.view(2 * self.width, self.kernel, self.bins)
        heard = torch.arange(features.shape[1]) < feature_lengths[:, None]
        x = F.conv1d((features * heard[..., None]).transpose(1, 2), weight.transpose(1, 2),
                     self.convolution.bias, stride=self.stride, padding=(self.kernel - 1) // 2)
        x = F.glu(x, dim=1).transpose(1, 2)
        if self.has_sinusoids:
            x = x + sinusoids(positions, self.width)
        padding = padding_offsets(frame_lengths, x.shape[1])
        for layer in self.layers:
            x = layer(x, padding)
        return self.head(self.final_norm(x)), frame_lengths
