"""What the demo is told: where Counterfoil runs and the key to use."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DemoSettings(BaseSettings):
    """Addresses and key of a running Counterfoil; `counterfoil demo` sets them."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_", frozen=True, extra="ignore")

    url: str = Field(default="http://127.0.0.1:8080", description="Base address of the gateway's REST API.")
    public_url: str = Field(default="", description="The same as people reach it, for links; empty = `url`.")
    api_key: str = Field(default="", description="API key with every scope.")
    traces_url: str = Field(default="", description="Base address of the pages that show traces; empty = none.")
