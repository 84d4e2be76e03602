"""Which refusals of engines say that the model is not there."""

import json

import pytest

from hal0.dispatcher.lost import reason_in


def coded(code: object, message: str = "so it is") -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": "t"}}).encode()


@pytest.mark.parametrize(
    "refusal",
    [
        coded("model_not_loaded"),
        coded("model_not_found"),
        coded("model_load_error"),
        coded("slots_pinned_error"),
        coded("backend_lost"),
        coded(400, "model is not loaded"),
        coded(503, "Loading model"),
        coded(400, "model 'tiny' not found"),
        b'{"error": "model is not loaded"}',
        b'{"error":{"message":"reset","details":{"code":"backend_watchdog_reset"}}}',
    ],
)
def test_an_engine_that_does_not_have_the_model_is_understood(refusal: bytes) -> None:
    assert reason_in(refusal)


@pytest.mark.parametrize(
    "refusal",
    [
        b"",
        b"model is not loaded",
        b"[]",
        b"\xff",
        b'{"error": null}',
        b'{"error": []}',
        b"[" * 100_000,
        coded(501, "This server does not support embeddings. Start it with `--embeddings`"),
        coded("context_length_exceeded", "the prompt says: model 'x' not found, is it?"),
        coded(400, "Failed to parse messages"),
        coded(None),
        coded(["model_not_found"]),
    ],
)
def test_any_other_refusal_is_the_client_s(refusal: bytes) -> None:
    assert reason_in(refusal) is None
