"""What is written says what is there: read again, it leaves nothing to do, also for odd names."""

import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal0.declare.document import Document, read
from hal0.declare.plan import plan
from hal0.declare.setup import FileBody, ModelSetup, SlotSetup
from hal0.declare.steps import Act, There
from hal0.declare.writing import HIDDEN, text_of
from hal0.engines.options import LoadOptions
from hal0.errors import InvalidRequest
from hal0.registry.names import MODEL_NAME
from hal0.registry.sources import checked_name, checked_source
from hal0.slots.spec import NAME
from tests.declared import ENGINES, model_shown, slot_shown, there

SHA = "ab" * 32
BUSY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that is busy finds no other faults."""


def is_good(text: str, check: Any) -> bool:
    try:
        return bool(check(text))
    except InvalidRequest:
        return False


ANY = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=12)
FILE_NAMES = ANY.map(lambda text: f"{text}.gguf").filter(lambda text: is_good(text, checked_name))
SOURCES = st.one_of(
    FILE_NAMES.map(lambda name: f"/data/{name}"),
    st.sampled_from(["https://x/a.gguf?sig=f00d", "http://x:8/b", f"hf://o/r/c.gguf@{'c' * 40}"]),
    st.from_regex(r"hf://org/repo/[a-z]{1,9}\.gguf(@v[0-9])?", fullmatch=True),
).filter(lambda text: is_good(text, checked_source))
NUMBERS = st.one_of(st.none(), st.integers(1, 2**40))
TIMES = st.one_of(st.none(), st.floats(0.001, 9e6), st.integers(1, 10**6).map(float))


def files_of(role: str) -> st.SearchStrategy[FileBody]:
    return st.builds(
        FileBody,
        role=st.just(role),
        source=SOURCES,
        name=st.one_of(st.none(), FILE_NAMES, st.just("x.bin")),
        size_bytes=NUMBERS,
        sha256=st.one_of(st.none(), st.just(SHA)),
    )


def models_of(files: st.SearchStrategy[list[FileBody]]) -> st.SearchStrategy[ModelSetup]:
    formats = st.sampled_from(["gguf", "other"])
    return st.builds(ModelSetup, files=files, format=formats, allow_copy=st.booleans())


def is_placed(named: tuple[str, ModelSetup]) -> bool:
    return is_good(named[0], lambda name: model_shown(name, named[1]))


MODELS = st.one_of(
    models_of(files_of("main").map(lambda file: [file])),
    models_of(st.lists(files_of("shard"), min_size=1, max_size=3)),
    models_of(st.tuples(files_of("main"), files_of("mmproj")).map(list)),
    st.just(ModelSetup(files=[FileBody()])),
    st.builds(ModelSetup, source=SOURCES),
)
OPTIONS = st.builds(
    LoadOptions,
    ctx_size=st.integers(256, 9000),
    llamacpp_backend=st.sampled_from([None, "cpu"]),
    llamacpp_args=st.sampled_from(["", "--threads 2", "--threads 4 --no-mmap"]),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    named = st.tuples(st.from_regex(MODEL_NAME, fullmatch=True), MODELS).filter(is_placed)
    models = dict(draw(st.lists(named, max_size=4)))
    slots = {}
    free = list(models)
    for name in draw(st.lists(st.from_regex(NAME, fullmatch=True), max_size=4, unique=True)):
        engine = draw(st.sampled_from(sorted(ENGINES)))
        idle_after_s, has_model = draw(TIMES), draw(st.booleans())
        slots[name] = SlotSetup(
            engine=engine,
            model=free.pop() if free and has_model else None,
            options=LoadOptions() if engine == "router" else draw(OPTIONS),
            pinned=draw(st.booleans()),
            priority=draw(st.integers(-1000, 1000)),
            idle_after_s=idle_after_s,
            unload_after_s=None if idle_after_s is None else idle_after_s + 1,
            load_timeout_s=draw(TIMES),
            load_timeout_s_per_gb=draw(TIMES),
            wake=draw(st.sampled_from(["always", "auto", "never"])),
            max_in_flight=draw(st.one_of(st.none(), st.integers(1, 100_000))),
            max_waiting=draw(st.one_of(st.none(), st.integers(0, 100_000))),
        )
    return Document(models=models, slots=slots)


@given(documents(), st.booleans())
@BUSY
def test_what_is_written_leaves_nothing_to_do(document: Document, is_pulled: bool) -> None:
    home = there(document)
    models = {
        name: model_shown(name, setup, is_pulled=is_pulled)
        for name, setup in document.models.items()
    }
    home = There(home.slots, models, home.engines)
    written = read(text_of(home))
    found = plan(written, home, prune=True)
    assert (found.steps, found.refusals) == ((), ())


@given(documents())
@BUSY
def test_what_is_written_makes_the_same_in_an_empty_home(document: Document) -> None:
    home = there(document)
    written = read(text_of(home))
    found = plan(written, there(), prune=False)
    assert found.refusals == ()
    assert {step.act for step in found.steps} <= {Act.CREATE}
    assert there(written).slots == home.slots
    assert [*there(written).models] == sorted(home.models)
    again = there(written)
    assert text_of(again).replace(f"# {HIDDEN}\n", "") == text_of(home).replace(f"# {HIDDEN}\n", "")


def test_only_what_is_not_the_default_is_written_and_sorted() -> None:
    document = read(
        """
        [slots.talk]
        idle_after_s = 300.0
        options = { ctx_size = 4096 }
        [slots.chat]
        model = "b"
        engine = "gpu"
        options = { ctx_size = 8192 }
        [models."qwen2.5"]
        source = "hf://org/repo/q.gguf"
        format = "gguf"
        [models.b]
        files = [{ source = "/data/b.gguf", name = "c.bin", size_bytes = 7 }]
        allow_copy = true
        """
    )
    assert text_of(there(document)) == (
        "# Written by `hal0 export`; `hal0 apply` brings about what it says.\n"
        "\n"
        "[models.b]\n"
        "files = [\n"
        '    {source = "/data/b.gguf", name = "b.bin", size_bytes = 7},\n'
        "]\n"
        "allow_copy = true\n"
        "\n"
        '[models."qwen2.5"]\n'
        'source = "hf://org/repo/q.gguf"\n'
        "\n"
        "[slots.chat]\n"
        'engine = "gpu"\n'
        'model = "b"\n'
        "options = {ctx_size = 8192}\n"
        "\n"
        "[slots.talk]\n"
        "idle_after_s = 300\n"
    )


def test_what_a_pull_has_noted_is_not_written_but_what_people_told_is() -> None:
    document = read(f"[models.a]\nsource = '/a'\n[models.b]\nsource = '/b'\nsha256 = '{SHA}'")
    shown = {
        name: model_shown(name, setup, is_pulled=True) for name, setup in document.models.items()
    }
    written = tomllib.loads(text_of(There({}, shown, {})))
    assert written["models"] == {"a": {"source": "/a"}, "b": {"source": "/b", "sha256": SHA}}


def test_of_a_source_with_a_query_it_is_said_that_one_is_missing() -> None:
    document = read("[models.a]\nsource = 'https://x/a.gguf?sig=f00d'\n[models.b]\nsource = '/b'")
    text = text_of(there(document))
    assert text.count(HIDDEN) == 1
    assert "f00d" not in text


def test_an_empty_home_is_written_as_a_file_that_declares_nothing() -> None:
    assert read(text_of(there())) == Document()


def test_a_slot_of_before_an_option_came_is_written_as_it_is() -> None:
    shown = {**slot_shown("chat"), "options": {"ctx_size": 512}}
    assert read(text_of(there(None, shown))).slots["chat"].options.ctx_size == 512
