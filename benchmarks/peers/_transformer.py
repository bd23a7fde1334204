"""A causal transformer and its data: blocks of width 128 on sequences of 128 of 64 tokens."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from _workload import LENGTH, NUM_TOKENS

WIDTH, HEADS = 128, 4


class Block(nn.Module):
    """Attention and a layer of four times the width, each after a layer norm.

    Queries and keys have no bias: the gradient of a key's is zero to rounding, which Adam divides
    by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_wide = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.attention(self.before_attention(x)).chunk(3, -1)
        heads = [part.unflatten(-1, (HEADS, -1)).transpose(-3, -2) for part in parts]
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(attended.transpose(-3, -2).flatten(-2))
        return x + self.narrow(F.gelu(self.wide(self.before_wide(x))))


class Transformer(nn.Module):
    """A language model: from tokens `[batch, length]` to logits of the next ones.

    Every system has the same PyTorch, so that its initial parameters are those of one seed.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        # Of attention's kernels this one has a second derivative.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        self.token, self.place = nn.Embedding(NUM_TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.Sequential(*(Block() for _ in range(num_layers)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, NUM_TOKENS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.place.weight[: tokens.shape[-1]]
        return self.head(self.norm(self.layers(x)))


def next_token(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the next tokens."""
    return F.cross_entropy(logits.flatten(0, -2), tokens.flatten())
