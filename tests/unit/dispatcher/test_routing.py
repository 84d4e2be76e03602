"""What may be asked below /v1, and what nobody may ask there."""

import pytest

from hal0.access.roles import Role
from hal0.api.auth import TABLE
from hal0.dispatcher.routing import ROUTES, Takes


def test_the_list_is_closed() -> None:
    assert {route.path: route.takes.name for route in ROUTES.values()} == {
        "chat/completions": "JSON",
        "completions": "JSON",
        "embeddings": "JSON",
        "rerank": "JSON",
        "responses": "JSON",
        "audio/speech": "JSON",
        "audio/transcriptions": "FORM",
        "audio/translations": "FORM",
        "images/generations": "JSON",
        "images/edits": "FORM",
        "images/variations": "FORM",
    }


def test_every_route_is_in_the_table_of_roles_for_clients_and_no_other_post_is() -> None:
    posts = {path: role for (method, path), role in TABLE.items() if method == "POST"}
    below = {path for path in posts if path.startswith("/v1/")}
    assert below == set(ROUTES)
    assert {posts[path] for path in below} == {Role.CLIENT}


@pytest.mark.parametrize("word", ["load", "unload", "pull", "delete", "register", "slots", "stats"])
def test_nothing_that_engines_have_beside_inference_is_in_it(word: str) -> None:
    assert not [path for path in ROUTES if word in path.split("/")]


def test_a_route_takes_a_form_where_a_file_is_sent() -> None:
    assert [path for path, route in ROUTES.items() if route.takes is Takes.FORM] == [
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/edits",
        "/v1/images/variations",
    ]
