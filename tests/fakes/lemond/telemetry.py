"""What the server counts of requests: the last one, and totals."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Telemetry:
    """Tokens of the last request and of all."""

    input_tokens: int = 0
    output_tokens: int = 0
    time_to_first_token_s: float = 0.0
    tokens_per_second: float = 0.0
    requests: int = 0
    all_input_tokens: int = 0
    all_output_tokens: int = 0

    def note(self, input_tokens: int, output_tokens: int, first_s: float, took_s: float) -> None:
        """Count a request that was answered."""
        self.input_tokens, self.output_tokens = input_tokens, output_tokens
        self.time_to_first_token_s = first_s
        self.tokens_per_second = output_tokens / took_s if took_s > 0 else 0.0
        self.requests += 1
        self.all_input_tokens += input_tokens
        self.all_output_tokens += output_tokens

    def as_stats(self) -> dict[str, Any]:
        """Return the body of `GET /v1/stats`; nothing is ever served from a prefix cache."""
        return {
            "cache_tokens": 0 if self.requests else None,
            "cache_tokens_total": 0,
            "input_tokens": self.input_tokens,
            "input_tokens_total": self.all_input_tokens,
            "output_tokens": self.output_tokens,
            "output_tokens_total": self.all_output_tokens,
            "prompt_tokens": self.input_tokens,
            "prompt_tokens_total": self.all_input_tokens,
            "request_count_total": self.requests,
            "routing_decisions_total": 0,
            "routing_switches_total": 0,
            "time_to_first_token": self.time_to_first_token_s,
            "tokens_per_second": self.tokens_per_second,
        }
