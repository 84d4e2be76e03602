"""Every default with its unit; with `where.py` the only reader of the environment and `hal0.toml`.

The environment wins over `$HAL0_HOME/hal0.toml`, which wins over the defaults here. A name that
hal0 does not know is refused, for it is a slip of the pen that would leave a default in force; in
the environment, where other programs live too, only names that begin with HAL0_ are looked at.
"""

import errno
import os
import re
from difflib import get_close_matches
from os.path import realpath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from hal0.errors import SettingsError
from hal0.hosts import HostList, http_origin
from hal0.where import DEFAULT_BIND, PREFIX, default_home, home

EngineKind = Literal["embedded", "lemonade", "llamacpp"]
DECLARED: Final = (("models",), ("slots",))
"""Tables that are in the file of `hal0 apply`, which is none of settings."""

BEATS_MISSED: Final = 3
"""Who has missed fewer of its own beats may have been held up, and is not silent."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Hosts = Annotated[tuple[str, ...] | None, NoDecode]
"""In the environment with commas between them; see `hosts.py`."""


class Settings(BaseSettings):
    """All settings of one process, read once at its start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)
    toml_file: ClassVar[Path | None] = None

    home: Path = Field(default_factory=default_home, description="folder of hal0.db and run/")
    models_dir: Path | None = Field(
        None, description="folder of the model files; default $HAL0_HOME/models"
    )
    bind: str = Field(DEFAULT_BIND, description="address:port of the API")
    url: str | None = Field(
        None, description="where the CLI finds the API; default http://$HAL0_BIND"
    )
    token_file: Path | None = Field(None, description="file with the CLI's token")
    request_timeout_s: Seconds = Field(
        20.0, gt=0, description="seconds in which a request's head must arrive, then its body"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="logging")

    engine_url: str | None = Field(
        None, description="the model server; unset = the embedded engine at HAL0_ENGINE_BIND"
    )
    engine_kind: EngineKind | None = Field(
        None, description="default: lemonade when HAL0_ENGINE_URL is set, else embedded"
    )
    engine_key_file: Path | None = Field(None, description="file with the engine's API key")
    engine_bind: str = Field("127.0.0.1:13311", description="address:port of the embedded engine")
    engine_call_log: Path | None = Field(
        None, description="NDJSON file to which the embedded engine appends each call it gets"
    )
    engine_wait_s: Seconds = Field(
        300.0, description="seconds a job waits for an engine that refuses connections"
    )
    engine_settle_s: Seconds | None = Field(
        None,
        description="seconds after which the engine owes no answer to a load any more; "
        "default 1200 (lemonade: twice its global_timeout), 600 (embedded: its load limit; "
        "llamacpp)",
    )

    pull_stall_s: Seconds = Field(
        30.0, gt=0, description="seconds in which a source must send 16 KiB, or the rest"
    )
    pull_tries: int = Field(
        8, ge=1, description="network faults in a row, none of them further, until a pull fails"
    )
    pull_pause_s: Seconds = Field(
        1.0, description="seconds until a pull is tried again; doubles with each fault, to 60"
    )
    pull_hosts: Hosts = Field(
        None, description="hosts that pulls may ask, as in huggingface.co,*.hf.co; unset = any"
    )
    pull_private_hosts: Hosts = Field(
        None,
        description="hosts, addresses and networks that pulls may ask although they are private, "
        "as in nas.lan,10.0.0.0/8; unset = none",
    )
    disk_reserve_bytes: int = Field(
        256 * 2**20, ge=0, description="bytes that pulls leave free on the disk of the models"
    )
    hub_endpoint: str | None = Field(
        None, description="where hf:// sources are; unset = the public hub"
    )
    hub_token_file: Path | None = Field(None, description="file with the hub's access token")
    starters_file: Path | None = Field(
        None, description="file of the models that a first run offers; unset = those of hal0"
    )

    worker_threads: int = Field(4, ge=2, le=64, description="threads of one worker process")
    load_timeout_s: Seconds = Field(120.0, gt=0, description="wall-clock limit of a load, seconds")
    load_timeout_s_per_gb: Seconds = Field(
        0.0, description="seconds that each GB of a model's files adds to that limit"
    )
    unload_timeout_s: Seconds = Field(
        60.0, gt=0, description="wall-clock limit of an unload, seconds"
    )
    drain_timeout_s: Seconds = Field(
        30.0, description="seconds an unload waits for running requests"
    )
    idle_after_s: Seconds = Field(
        300.0, description="seconds unused until ready becomes idle; 0 = never"
    )
    unload_after_s: Seconds = Field(330.0, description="seconds unused until unloaded; 0 = never")
    beat_s: Seconds = Field(10.0, gt=0, description="seconds between two beats of a running job")
    silence_s: Seconds = Field(
        30.0,
        gt=0,
        description="seconds without a beat until a job is silent; three beats at least",
    )
    crash_limit: int = Field(3, ge=1, description="deaths of workers in a row until a job fails")
    scan_s: Seconds = Field(
        30.0, gt=0, description="seconds between two looks at what an engine has loaded"
    )
    engine_grace_s: Seconds = Field(
        60.0, description="seconds without anybody at an engine's address until its slots fail"
    )
    serving_linger_s: Seconds = Field(
        1.0, description="seconds a slot stays serving after its last request; 0 = none"
    )
    wake_timeout_s: Seconds = Field(
        60.0, description="seconds a request waits for its model to be loaded, or for a place"
    )
    max_in_flight: int = Field(
        64, ge=1, description="requests of one slot that one API forwards at once"
    )
    max_waiting: int = Field(
        64, ge=0, description="requests of one slot that wait in one API; a further one gets 429"
    )
    body_limit_bytes: int = Field(
        64 * 2**20,
        ge=1,
        le=2**29,
        description="bytes that the body of a request for inference may have; those of all that "
        "wait for their answers in one API, 512 MiB",
    )
    connect_timeout_s: Seconds = Field(
        5.0, gt=0, description="seconds in which an engine must take the connection of a request"
    )
    first_byte_timeout_s: Seconds = Field(
        600.0, gt=0, description="seconds in which an engine must begin to answer a request"
    )
    between_bytes_timeout_s: Seconds = Field(
        120.0, gt=0, description="seconds in which an engine must go on with an answer"
    )
    keep_jobs_days: float = Field(
        90.0, ge=0, description="days finished jobs are kept; 0 = for ever"
    )
    keep_transitions_days: float = Field(
        0.0, ge=0, description="days changes of state are kept; 0 = for ever"
    )
    busy_timeout_s: Seconds = Field(5.0, description="seconds a writer waits for the database")
    point: str | None = Field(None, description="crash point of tests: <name>:<kill|stop|sleep>")

    @field_validator("bind", "engine_bind")
    @classmethod
    def _is_address_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{value!r} is not address:port, as in 127.0.0.1:13310")
        return value

    @field_validator("pull_hosts", "pull_private_hosts", mode="before")
    @classmethod
    def _is_list_of_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(entry.strip() for entry in value.split(",") if entry.strip())
        if isinstance(value, tuple | list):
            HostList.of(map(str, value))
        return value

    @field_validator("engine_url")
    @classmethod
    def _is_origin_of_an_engine(cls, value: str | None) -> str | None:
        return None if value is None else http_origin(value)

    @field_validator("hub_endpoint")
    @classmethod
    def _is_http_origin(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"https?://[^\s/?#@]{1,255}(/[^\s?#@]*)?", value):
            return value
        raise ValueError(f"{value!r} is not http(s)://host[:port], without credentials or query")

    @model_validator(mode="after")
    def _keeps_models_apart(self) -> Self:
        """Refuse a folder in which a model could take the place of the database or the settings."""
        home, run, models = map(realpath, (self.home, self.run, self.models))
        if Path(home).is_relative_to(models) or Path(models).is_relative_to(run):
            raise ValueError(
                f"models_dir ({self.models}) is, holds or lies among what is hal0's own "
                f"({self.home}); choose a folder of its own, such as {self.home / 'models'}"
            )
        return self

    @model_validator(mode="after")
    def _knows_where_a_router_is(self) -> Self:
        """The engine that hal0 starts by itself is the embedded one, of another wire."""
        if self.engine_kind == "llamacpp" and self.engine_url is None:
            raise ValueError("engine_kind llamacpp needs engine_url: where llama-server listens")
        return self

    @model_validator(mode="after")
    def _demotes_before_it_unloads(self) -> Self:
        if 0 < self.unload_after_s <= self.idle_after_s:
            raise ValueError(
                f"idle_after_s ({self.idle_after_s}) must be less than "
                f"unload_after_s ({self.unload_after_s}); 0 switches either off"
            )
        return self

    @model_validator(mode="after")
    def _beats_before_it_is_silent(self) -> Self:
        if round(self.silence_s / self.beat_s, 6) < BEATS_MISSED:
            raise ValueError(
                f"silence_s ({self.silence_s:g}) must be at least {BEATS_MISSED} times "
                f"beat_s ({self.beat_s:g})"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then `hal0.toml` of the home folder."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=home() / "hal0.toml")
        return init_settings, env_settings, toml

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; raises SettingsError that names each bad and each unknown one."""
        unknown = [_not_a_setting(name) for name in sorted(os.environ) if _is_slip(name)]
        try:
            settings = cls(**overrides)
        except ValidationError as exc:
            raise SettingsError("; ".join([*unknown, *map(_told, exc.errors())])) from exc
        except (OSError, ValueError) as exc:
            raise SettingsError(f"{home() / 'hal0.toml'} cannot be read: {exc}") from exc
        if unknown:
            raise SettingsError("; ".join(unknown))
        return settings

    @property
    def database(self) -> Path:
        """Path of the one database file."""
        return self.home / "hal0.db"

    @property
    def models(self) -> Path:
        """Folder in which every model file lies when it is loaded."""
        return self.models_dir or self.home / "models"

    @property
    def run(self) -> Path:
        """Folder of owner locks and bells; what is in it may vanish at any time."""
        return self.home / "run"

    @property
    def api_url(self) -> str:
        """Where the API is, for the CLI."""
        return self.url or f"http://{self.bind}"

    @property
    def default_engine_url(self) -> str:
        """Where the engine of the first migration is."""
        return self.engine_url or f"http://{self.engine_bind}"

    @property
    def default_engine_kind(self) -> str:
        """Kind of the engine of the first migration."""
        return self.engine_kind or ("lemonade" if self.engine_url else "embedded")

    @property
    def default_settle_s(self) -> float:
        """Seconds until a load that nobody answered counts as settled."""
        return self.settle_s_of(self.default_engine_kind)

    def settle_s_of(self, kind: str) -> float:
        """Return the same for an engine of this kind."""
        if self.engine_settle_s is not None:
            return self.engine_settle_s
        return 1200.0 if kind == "lemonade" else 600.0


def _is_slip(name: str) -> bool:
    """Tell whether a name of the environment is meant for hal0 and is no setting."""
    known = (f"{PREFIX}{field.upper()}" for field in Settings.model_fields)
    return name.upper().startswith(PREFIX) and name not in known


def _not_a_setting(name: str) -> str:
    near = get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields)
    meant = " or ".join(f"{PREFIX}{field.upper()}" for field in near)
    to_do = f"did you mean {meant}?" if near else "README lists them"
    return f"{name} is no setting of hal0; {to_do}"


def _told(error: ErrorDetails) -> str:
    name = f"{PREFIX}{'_'.join(map(str, error['loc'])).upper() or '*'}"
    if error["loc"][:1] in DECLARED:
        return f"{error['loc'][0]}: `hal0 apply` takes such a table, of a file without settings"
    if error["type"] == "extra_forbidden":
        return _not_a_setting(name)
    given = f", not {error['input']!r}" if error["type"].endswith("_parsing") else ""
    return f"{name}: {error['msg'].removeprefix('Value error, ')}{given}"


def cannot_listen(name: str, bind: str, error: OSError) -> SettingsError:
    """Return the error of an address that cannot be had, which the setting `name` gives."""
    to_do = f"set {name} to an address of this machine"
    if error.errno == errno.EADDRINUSE:
        to_do = f"stop what does, or set {name} to another port"
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return SettingsError(
        f"{name}={bind}: cannot listen there: {why}; {to_do}", evidence={"bind": bind}
    )
