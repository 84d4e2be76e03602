"""The body of `GET /metrics`: Prometheus' text, with the families of lemond 11.7 in its order."""

from collections.abc import Iterator

from tests.fakes.lemond.router import Router
from tests.fakes.lemond.shapes import TYPES, VERSION
from tests.fakes.lemond.telemetry import Telemetry

FAMILIES = (
    ("server_up", "gauge", "Whether the Lemonade server is running."),
    ("server_info", "gauge", "Lemonade server build information."),
    ("loaded_models", "gauge", "Number of models currently loaded in Lemonade."),
    ("model_info", "gauge", "Metadata for each Lemonade model observed by this process."),
    ("model_loaded", "gauge", "Whether this model is currently loaded in Lemonade."),
    ("model_input_tokens", "gauge", "Latest input token count reported by a model."),
    ("model_output_tokens", "gauge", "Latest output token count reported by a model."),
    ("model_prompt_tokens", "gauge", "Latest prompt token count reported by a model."),
    (
        "model_cache_tokens",
        "gauge",
        "Latest prompt tokens served from the backend prefix cache for a model.",
    ),
    (
        "model_time_to_first_token_seconds",
        "gauge",
        "Latest time to first token reported by a model.",
    ),
    ("model_tokens_per_second", "gauge", "Latest generation throughput reported by a model."),
    ("model_requests_total", "counter", "Cumulative inference requests observed for a model."),
    ("model_input_tokens_total", "counter", "Cumulative input tokens observed for a model."),
    ("model_output_tokens_total", "counter", "Cumulative output tokens observed for a model."),
    ("model_prompt_tokens_total", "counter", "Cumulative prompt tokens observed for a model."),
    (
        "model_cache_tokens_total",
        "counter",
        "Cumulative prompt tokens served from the backend prefix cache for a model.",
    ),
    ("max_loaded_models", "gauge", "Configured loaded model limit per model type."),
    ("requests_total", "counter", "Cumulative inference requests observed by Lemonade."),
    ("input_tokens_total", "counter", "Cumulative input tokens observed by Lemonade."),
    ("output_tokens_total", "counter", "Cumulative output tokens observed by Lemonade."),
    ("prompt_tokens_total", "counter", "Cumulative prompt tokens observed by Lemonade."),
    (
        "cache_tokens_total",
        "counter",
        "Cumulative prompt tokens served from backend prefix caches.",
    ),
    ("routing_decisions_total", "counter", "Cumulative collection.router routing decisions."),
    (
        "routing_switches_total",
        "counter",
        "Cumulative routing decisions that changed a conversation's routed model.",
    ),
    ("cpu_usage_percent", "gauge", "System CPU utilization percentage."),
    ("memory_used_gb", "gauge", "System memory usage in GiB."),
    ("gpu_usage_percent", "gauge", "GPU utilization percentage."),
    ("vram_used_gb", "gauge", "GPU memory usage in GiB."),
    ("npu_usage_percent", "gauge", "NPU utilization percentage."),
)
"""Name without `lemonade_`, type, help. The totals of the server stand behind all their heads."""


def metrics_text(router: Router, telemetry: Telemetry) -> str:
    """Return the page; needs the router's mutex."""
    samples = _samples(router, telemetry)
    lines: list[str] = []
    for name, kind, text in FAMILIES:
        lines.append(f"# HELP lemonade_{name} {text}")
        lines.append(f"# TYPE lemonade_{name} {kind}")
        lines += [f"lemonade_{name}{labels} {value}" for labels, value in samples.get(name, [])]
        if name == "routing_switches_total":
            lines += [f"lemonade_{total} {value}" for total, value in _totals(telemetry)]
    return "\n".join(lines) + "\n"


def _samples(router: Router, telemetry: Telemetry) -> dict[str, list[tuple[str, float]]]:
    limit = router.told.script.max_loaded_models
    models = [f'{{model="{name}"}}' for name in router.loaded]
    return {
        "server_up": [("", 1)],
        "server_info": [(f'{{version="{VERSION}"}}', 1)],
        "loaded_models": [("", len(router.loaded))],
        "model_info": [(model, 1) for model in models],
        "model_loaded": [(model, 1) for model in models],
        "max_loaded_models": [(f'{{type="{kind}"}}', limit) for kind in TYPES],
        "cpu_usage_percent": [("", 0)],
        "memory_used_gb": [("", 0.5)],
    }


def _totals(telemetry: Telemetry) -> Iterator[tuple[str, int]]:
    stats = telemetry.as_stats()
    yield "requests_total", telemetry.requests
    for name in ("input_tokens", "output_tokens", "prompt_tokens", "cache_tokens"):
        yield f"{name}_total", stats[f"{name}_total"]
    yield "routing_decisions_total", 0
    yield "routing_switches_total", 0
