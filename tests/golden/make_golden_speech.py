#!/usr/bin/env python3
"""Writes the golden values of the speech tests, as make_golden.py does for the rest.

    python3 -m venv venv && venv/bin/pip install torch torchaudio numpy safetensors pyyaml soundfile
    venv/bin/python tests/golden/make_golden_speech.py

ctc.safetensors: torch.nn.functional.ctc_loss over log_softmax of the logits, in float64, for 200
sequences with repeated targets, without targets and with no frame to spare.
    sizes      i32 [200, 3]: frames, vocabulary, targets of each; eight in a row share a vocabulary
    logits     bf16, the sequences' [frames, vocabulary] one behind the other
    targets    i32, likewise; 0 is the blank
    losses     [200]
    gradients  of each sequence's loss, as the logits

fbank.safetensors: torchaudio.compliance.kaldi.fbank, in float32, of recordings of Debian's package
asterisk-core-sounds-en-wav and of a signal that the test makes itself; samples in 16-bit units.
    NAME           f32 [frames kept, bins]: every third frame, to keep the file small
    NAME.settings  sample rate, bins

asr_*.safetensors: for the model of the YAML file of the same name, in float64,
    weight.NAME            the weights
    features               bf16 [B, frames, bins]
    feature_lengths        i32 [B]
    positions              bf16 [B, T]
    targets                i32 [B, most]; 0 behind each one's end
    target_lengths         i32 [B]
    logits                 [B T, V], of padding too
    losses                 [B]
    gradient.NAME          of the summed losses over the summed target lengths; matrices as products
                           (see make_golden.py)
"""

import pathlib

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import reference_lm as lm
from make_golden import FOLDER, Golden
from reference_speech import SpeechEncoder

RECORDINGS = pathlib.Path("/usr/share/asterisk/sounds/en_US_f_Allison")


def ctc():
    golden = Golden(101)
    random = golden.random
    logits, targets, sizes, losses, gradients = [], [], [], [], []
    for group in range(25):
        vocabulary = int(random.integers(2, 7))
        for case in range(8):
            count = 0 if case == 0 else int(random.integers(1, 7))
            labels = random.integers(1, vocabulary, count)
            if case in (1, 2) and count > 1:
                labels[1:] = labels[0]
            repeats = int((labels[1:] == labels[:-1]).sum())
            slack = 0 if case in (2, 3, 4) else int(random.integers(0, 6))
            frames = max(1, count + repeats + slack)
            x = golden.normal(frames, vocabulary, scale=2.0).requires_grad_()
            target = torch.from_numpy(labels)
            loss = F.ctc_loss(x.log_softmax(-1)[:, None], target[None], [frames], [count],
                              blank=0, reduction="none")[0]
            loss.backward()
            assert loss.isfinite()
            logits.append(x.detach().flatten())
            gradients.append(x.grad.flatten())
            targets.append(target)
            losses.append(loss.detach())
            sizes.append([frames, vocabulary, count])
    golden.put_input("sizes", torch.tensor(sizes))
    golden.put_input("logits", torch.cat(logits))
    golden.put_input("targets", torch.cat(targets))
    golden.put("losses", torch.stack(losses))
    golden.put("gradients", torch.cat(gradients))
    golden.save(FOLDER / "ctc.safetensors")


def made_signal(samples):
    """Two tones and noise of a linear congruential generator, as FbankTest's signal()."""
    state, values = 12345, numpy.zeros(samples)
    for i in range(samples):
        state = (1664525 * state + 1013904223) % 2**32
        noise = state / 2**31 - 1
        values[i] = 6000 * numpy.sin(0.05 * i) + 900 * numpy.sin(1.3 * i) + 50 * noise
    return values


def fbank():
    import soundfile
    from torchaudio.compliance import kaldi

    tensors = {}
    signals = {"made": (16000, 80, made_signal(9000))}
    for name, bins in [("activated", 40), ("vm-goodbye", 80), ("conf-full", 80)]:
        values, rate = soundfile.read(RECORDINGS / f"{name}.wav", dtype="int16")
        signals[name] = (rate, bins, values)
    for name, (rate, bins, values) in signals.items():
        waveform = torch.from_numpy(numpy.asarray(values, dtype=numpy.float32))[None]
        features = kaldi.fbank(waveform, num_mel_bins=bins, sample_frequency=float(rate))
        tensors[name] = features[::3].contiguous()
        tensors[f"{name}.settings"] = torch.tensor([rate, bins], dtype=torch.int32)
        print(f"{name}: {features.shape[0]} frames of {bins} bins")
    save_file(tensors, FOLDER / "fbank.safetensors")


def speech_encoder(name, seed):
    golden = Golden(seed)
    config = lm.read_config(FOLDER / f"{name}.yaml")
    feature_lengths = torch.tensor([29, 34, 10])
    target_lengths = torch.tensor([4, 7, 2])
    bins, vocab_size = config["model"]["speech"]["mel_bins"], 5
    seq_len = (int(feature_lengths.max()) + 2) // 3
    model = SpeechEncoder(config["model"], seq_len, vocab_size)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                value = golden.normal(*parameter.shape, scale=parameter[0].numel() ** -0.5)
            else:  # around the initial value
                value = golden.normal(*parameter.shape, scale=0.2)
                value = (parameter + value).to(torch.bfloat16).to(torch.float64)
            parameter.copy_(value)
            golden.put_input(f"weight.{key}", parameter)
    features = golden.normal(3, int(feature_lengths.max()), bins)
    positions = golden.normal(3, seq_len, scale=6.0)
    targets = golden.integers(1, vocab_size, 3, int(target_lengths.max()))
    targets[1, 3] = targets[1, 2]
    targets *= torch.arange(targets.shape[1]) < target_lengths[:, None]
    golden.put_input("features", features)
    golden.put_input("positions", positions)
    for key, value in {"feature_lengths": feature_lengths, "targets": targets,
                       "target_lengths": target_lengths}.items():
        golden.put_input(key, value)

    logits, frame_lengths = model(features, feature_lengths, positions)
    losses = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, frame_lengths,
                        target_lengths, blank=0, reduction="none")
    (losses.sum() / target_lengths.sum()).backward()
    golden.put("logits", logits.flatten(0, 1))
    golden.put("losses", losses)
    for key, parameter in model.named_parameters():
        golden.put_products(f"gradient.{key}", parameter.grad)
    golden.save(FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    fbank()
    torch.set_default_dtype(torch.float64)
    ctc()
    for seed, path in enumerate(sorted(FOLDER.glob("asr_*.yaml")), start=102):
        speech_encoder(path.stem, seed)
