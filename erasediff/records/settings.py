"""Where services are and how to reach them: environment variables, never part of a run's digest."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from the environment with the prefix ``ERASEDIFF_``; MLflow's own variable is respected.

    Attributes:
        mlflow_tracking_uri: from ``MLFLOW_TRACKING_URI``; a SQLite file in the workdir if unset.
        dvc_remote: any URL DVC understands (``s3://bucket/prefix``, a folder, ...); a folder in the workdir if unset.
        dvc_remote_endpoint_url: endpoint of an S3-compatible store.
        kfp_host: address of Kubeflow Pipelines, from ``ERASEDIFF_KFP_HOST`` or ``KFP_HOST``.
        kfp_token: bearer token for it, from ``ERASEDIFF_KFP_TOKEN`` or ``KFP_TOKEN``.
        http_timeout_seconds: how long a server that does not answer is waited for.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_", extra="ignore")

    mlflow_tracking_uri: str | None = None
    dvc_remote: str | None = None
    dvc_remote_endpoint_url: str | None = None
    kfp_host: str | None = Field(default=None, validation_alias=AliasChoices("ERASEDIFF_KFP_HOST", "KFP_HOST"))
    kfp_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("ERASEDIFF_KFP_TOKEN", "KFP_TOKEN"))
    http_timeout_seconds: int = 10

    def tracking_uri(self, workdir: Path) -> str:
        """The MLflow tracking URI to use."""
        return os.environ.get("MLFLOW_TRACKING_URI") or self.mlflow_tracking_uri or f"sqlite:///{workdir / 'mlflow.db'}"
