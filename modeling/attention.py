"""Multi-head attention through transformers' attention interface (eager, sdpa, flash)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention: (B, heads, N, d) queries over (B, heads, M, d) keys and values; gives (B, N, heads, d) and the
    weights (B, heads, N, M). `attention_mask` is added to the scores."""
    scores = torch.matmul(query * scaling, key.transpose(2, 3))  # (B, heads, N, M)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.softmax(-1), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights  # (B, N, heads, d)


class MultiHeadAttention(nn.Module):
    """Attention of `hidden_size` channels in `num_attention_heads` heads, in which positions are added to queries and
    keys by the caller, not to values."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_size = hidden_size // self.num_heads
        self.scaling = self.head_size**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """(B, N, C) to (B, heads, N, C / heads)."""
        batch, length, _ = states.shape
        return states.view(batch, length, self.num_heads, self.head_size).transpose(1, 2)  # (B, heads, N, d)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`query` (B, N, C) attends to `key` and `value` (B, M, C); gives (B, N, C) and, of eager attention only, the
        weights (B, heads, N, M)."""
        interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        attended, weights = interface(
            self,
            self.split_heads(self.q_proj(query)),
            self.split_heads(self.k_proj(key)),
            self.split_heads(self.v_proj(value)),
            None,
            scaling=self.scaling,
            dropout=self.config.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.flatten(2)), weights  # (B, N, C)
