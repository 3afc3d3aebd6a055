"""Times PyTorch's softmax attention on the GPU: its FlashAttention-2 and cuDNN backends.

Reads shapes from standard input, one JSON list [batch, heads, kv_heads, head_dim, seq_len, causal] a
line, and answers each with one line of JSON for every backend, with the fields of bench_attention
--json, so that both can stand in one table (attention_table.py). Only sequences of one length, no
ALiBi and no window: what both backends have.
"""

import argparse
import json
import math
import sys

BACKENDS = {"fa2": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}


def median_ms(torch, call, iterations, warm_up=3):
    """As bench_attention does it: the median of single calls, each between two events."""
    times = []
    for i in range(warm_up + iterations):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        if i >= warm_up:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def measure(torch, peer, batch, heads, kv_heads, head_dim, seq_len, causal, iterations):
    """The times of one shape as a dict; raises RuntimeError where the backend refuses it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    attention = torch.nn.functional.scaled_dot_product_attention

    def heads_of(count):
        # [batch, seq_len, heads, head_dim] in memory, as a model has it.
        x = torch.randn(batch, seq_len, count, head_dim, device="cuda", dtype=torch.bfloat16)
        return x.transpose(1, 2).requires_grad_()

    q, k, v = heads_of(heads), heads_of(kv_heads), heads_of(kv_heads)
    options = {"is_causal": causal, "enable_gqa": kv_heads != heads}
    with sdpa_kernel(getattr(SDPBackend, BACKENDS[peer])):
        with torch.no_grad():
            forward = median_ms(torch, lambda: attention(q, k, v, **options), iterations)
        out = attention(q, k, v, **options)
        d_out = torch.randn_like(out)
        backward = median_ms(
            torch, lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True),
            iterations)
    flops = 4.0 * batch * heads * seq_len**2 * head_dim * (0.5 if causal else 1.0)
    return {"impl": peer, "kind": "softmax", "batch": batch, "heads": heads, "kv_heads": kv_heads,
            "head_dim": head_dim, "seq_len": seq_len, "causal": causal, "fwd_ms": forward,
            "bwd_ms": backward, "fwd_tflops": flops / forward * 1e-9,
            "bwd_tflops": 2.5 * flops / backward * 1e-9,
            "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "cudnn_version": torch.backends.cudnn.version()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(BACKENDS), help="some of " + ", ".join(BACKENDS))
    parser.add_argument("--iters", type=int, default=20)
    arguments = parser.parse_args()
    peers = arguments.peers.split(",")
    for peer in peers:
        if peer not in BACKENDS:
            parser.error(f"--peers: there is no {peer}, only {', '.join(BACKENDS)}")
    try:
        import torch
    except ImportError:
        sys.exit("attention_peers.py needs a Python with PyTorch: choose it with "
                 "attention_table.py --python")
    if not torch.cuda.is_available():
        sys.exit("attention_peers.py: PyTorch finds no GPU")
    for line in sys.stdin:
        shape = json.loads(line)
        for peer in peers:
            try:
                row = measure(torch, peer, *shape, arguments.iters)
            except RuntimeError as error:
                names = ("batch", "heads", "kv_heads", "head_dim", "seq_len", "causal")
                row = dict(zip(names, shape), impl=peer, kind="softmax", fwd_ms=math.nan,
                           bwd_ms=math.nan, fwd_tflops=math.nan, bwd_tflops=math.nan,
                           error=str(error).splitlines()[0])
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
