"""What every service reads from the environment; a service's own settings subclass it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from counterfoil_chassis.errors import StartError

SECRETS_DIR = "COUNTERFOIL_SECRETS_DIR"
METRICS_LISTEN = (
    "Address of `/metrics`, `/healthz` and, for probes, `/startupz`, `/readyz` and `/livez`; never a public one; "
    "empty = none."
)


class ServiceSettings(BaseSettings):
    """Settings shared by all services; defaults run on one laptop.

    A subclass sets `env_prefix="COUNTERFOIL_<SERVICE>_"` and the default of `listen`. The service's name, from the
    prefix, gives the defaults of the key file and database. Keyword arguments take precedence over the environment,
    and that over the files of `COUNTERFOIL_SECRETS_DIR`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    listen: str = Field(default="127.0.0.1:0", description="Address the server binds; port 0 picks a free one.")
    metrics_listen: str = Field(
        default="",
        description=METRICS_LISTEN,
    )
    data_dir: Path = Field(
        default=Path(".counterfoil"),
        validation_alias="COUNTERFOIL_DATA_DIR",
        description="Folder of everything stored locally.",
    )
    secrets_dir: Path | None = Field(
        default=None,
        validation_alias=SECRETS_DIR,
        description="Folder of settings by file, for secrets: a file named like a variable in lower case, such as "
        "`counterfoil_database_url`, holds its value. A variable of the environment wins over its file.",
    )
    trusted_keys_dir: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_TRUSTED_KEYS_DIR",
        description="Folder of the public keys `<service>.pem` whose tokens are accepted; "
        "by default `keys/trusted` in the data folder.",
    )
    private_key_file: Path | None = Field(
        default=None,
        description="The service's own Ed25519 key; by default `keys/<service>.pem` in the data folder.",
    )
    databases_url: str = Field(
        default="",
        validation_alias="COUNTERFOIL_DATABASE_URL",
        description="The PostgreSQL server of every service, `postgresql://user:password@host:5432`; each uses its "
        "database `counterfoil_<service>` there, or `<name>_<service>` when the URL ends in `/<name>`.",
    )
    database_url: str = Field(
        default="",
        description="URL of the service's database; by default that on the server of `COUNTERFOIL_DATABASE_URL`, "
        "without one the SQLite file `<service>.db` in the data folder.",
    )
    lease_seconds: float = Field(
        default=10.0,
        ge=1,
        validation_alias="COUNTERFOIL_LEASE_SECONDS",
        description="How long a process that writes PostgreSQL may be silent before another one takes over.",
    )
    tls_cert_file: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_TLS_CERT_FILE",
        description="Certificate, with its chain, that a process shows to the other services: PEM, with the service's "
        "name as a DNS name. `{service}` in it stands for that name. None = no TLS between services.",
    )
    tls_key_file: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_TLS_KEY_FILE",
        description="Its private key; `{service}` stands for the name.",
    )
    tls_ca_file: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_TLS_CA_FILE",
        description="Certificate of the one authority whose certificates services accept from each other.",
    )
    otlp_endpoint: str = Field(
        default="",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/gRPC endpoint that traces are sent to; empty = they are not.",
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias="COUNTERFOIL_TRACE_RATIO",
        description="Share of the requests that start a trace; a caller's own decision is always followed.",
    )
    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        validation_alias="COUNTERFOIL_LOG_LEVEL",
        description="Lowest level that is logged: DEBUG, INFO, WARNING or ERROR.",
    )
    max_running: int = Field(
        default=512, ge=1, description="Requests that are worked on at once; more are refused with OVERLOADED."
    )
    max_delay_seconds: float = Field(
        default=2.0,
        gt=0,
        description="How late the event loop may come back to what waits for it before requests are refused with "
        "OVERLOADED.",
    )
    max_calls_per_dependency: int = Field(
        default=256,
        ge=1,
        description="Calls to one other service that run at once; as many again wait for up to a second, more are "
        "refused with DEPENDENCY_BUSY.",
    )
    drain_seconds: float = Field(
        default=5.0, ge=0, description="How long running calls may go on after the process was told to stop."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then the files that it points to."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @property
    def shares_database(self) -> bool:
        """Say whether the process only adds rows beside the one that holds the lease; a service's own settings may."""
        return False

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        name = self.service_name()
        fill = object.__setattr__  # the model is frozen for everybody else
        if self.trusted_keys_dir is None:
            fill(self, "trusted_keys_dir", self.data_dir / "keys" / "trusted")
        if self.private_key_file is None:
            fill(self, "private_key_file", self.data_dir / "keys" / f"{name}.pem")
        given = [each for each in (self.tls_cert_file, self.tls_key_file, self.tls_ca_file) if each is not None]
        if len(given) not in (0, 3):
            raise ValueError("COUNTERFOIL_TLS_CERT_FILE, _KEY_FILE and _CA_FILE are set together or not at all")
        for each in ("tls_cert_file", "tls_key_file", "tls_ca_file") if given else ():
            fill(self, each, Path(str(getattr(self, each)).replace("{service}", name)))
        if not self.database_url:
            file = f"sqlite+aiosqlite:///{self.data_dir / f'{name}.db'}"
            fill(self, "database_url", url_of(name, self.databases_url) if self.databases_url else file)
        _require_database(self.database_url)
        return self

    @classmethod
    def service_name(cls) -> str:
        """Return the service's name as its environment prefix gives it, e.g. `models`."""
        prefix = cls.model_config.get("env_prefix") or "COUNTERFOIL_SERVICE_"
        return prefix.removeprefix("COUNTERFOIL_").removesuffix("_").lower()


def _require_database(url: str) -> None:
    """Raise ValueError, which tells nothing of the URL, unless it is one of a database that can be used."""
    try:
        place = urlsplit(url)
        is_known = place.scheme.partition("+")[0] in ("postgresql", "sqlite") and (place.port is None or place.port > 0)
    except ValueError:  # its text holds a part of the password, most likely
        is_known = False
    if not is_known:
        raise ValueError(
            "a database's URL is postgresql://user:password@host:5432/name, and in the password / is written %2F, "
            "# %23, ? %3F, @ %40 and : %3A"
        )


class _SecretFiles(EnvSettingsSource):
    """Reads a folder as though it were the environment.

    pydantic-settings' own source of this kind passes over what it cannot read, with a warning at most.
    """

    def _load_env_vars(self) -> Mapping[str, str]:
        self.secrets_dir = super()._load_env_vars().get(SECRETS_DIR.lower())
        return {} if not self.secrets_dir else secrets_in(Path(self.secrets_dir))


def secrets_in(folder: Path) -> dict[str, str]:
    """Return the settings that a folder holds by file, by the file's name; raise StartError, which tells no value.

    Other files may lie there, too: keys and certificates that settings point to.
    """
    try:
        files = [each for each in folder.iterdir() if each.name.startswith(("counterfoil_", "otel_"))]
        return {each.name: each.read_text(encoding="utf-8").strip() for each in files}
    except OSError as error:
        place = error.filename or folder
        raise StartError(f"{place} of {SECRETS_DIR} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"a file of {SECRETS_DIR} ({folder}) is not a text in UTF-8") from None


def url_of(service: str, server: str) -> str:
    """Return the URL of a service's database; the server's URL names none, or what the names of all begin with."""
    place = urlsplit(server)
    return place._replace(path=f"/{place.path.strip('/') or 'counterfoil'}_{service}").geturl()
