"""Settings from environment variables: services and how to reach them. They are not part of a run's digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from erasediff.environment import in_pod
from erasediff.errors import BadInput
from erasediff.files import sha256_bytes
from erasediff.records.base import canonical_json, first_problem
from erasediff.records.requests import Terms, Zone

BackendName = Literal["none", "deployment", "kserve"]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]  # with a suffix it must fit into 63 characters

NO_KEY = (
    "no signing key is set: make one with `erasediff keys new --to FOLDER`, and set ERASEDIFF_SIGNING_KEY to FOLDER/signing-key.pem "
    "(docs/certificate.md says how to keep it)."
)

MLFLOW_DATABASE = "mlflow.db"
"""MLflow's database in a workdir, which is used if no server is set."""


class EnvironmentSettings(BaseSettings):
    """Settings from variables with one prefix."""

    of: ClassVar[str]

    @classmethod
    def load(cls) -> Self:
        """The settings.

        Raises:
            BadInput: a variable has an invalid value.
        """
        try:
            return cls()
        except ValidationError as error:
            raise BadInput(f"the settings of {cls.of} are not valid: {first_problem(error)}; correct {cls._variable(error)}.") from None

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The variables that it reads and that hold no secret, by which a pod gets them."""
        open_fields = (name for name, found in cls.model_fields.items() if SecretStr not in (found.annotation, *get_args(found.annotation)))
        return tuple(cls._name(name) for name in open_fields)

    @classmethod
    def _name(cls, field: str) -> str:
        """The variable of a field; the first one, if it has several."""
        alias = cls.model_fields[field].validation_alias
        if isinstance(alias, AliasChoices):
            return str(alias.choices[0])
        return alias if isinstance(alias, str) else f"{cls.model_config['env_prefix']}{field}".upper()

    @classmethod
    def _variable(cls, error: ValidationError) -> str:
        prefix, where = str(cls.model_config["env_prefix"]), error.errors()[0]["loc"]
        if not where:
            return f"the variables {prefix}…"
        return name if (name := str(where[0])).isupper() else f"{prefix}{name}".upper()  # a field with an alias is named by it


class ServiceSettings(EnvironmentSettings):
    """Addresses of the services that a run uses, read from the environment with the prefix ``ERASEDIFF_``; MLflow's own variable is respected.

    Attributes:
        mlflow_tracking_uri: from ``MLFLOW_TRACKING_URI``; a SQLite file in the workdir if unset.
        dvc_remote: any URL DVC understands (``s3://bucket/prefix``, a folder, ...); a folder in the workdir if unset.
        dvc_remote_endpoint_url: endpoint of an S3-compatible store.
        mlflow_backend_store_uri: the database of an MLflow server: the purge deletes rows there, since the server only hides them.
        mlflow_artifacts_destination: where an MLflow server keeps artifacts (a folder, ``s3://BUCKET/PREFIX``).
        http_timeout_seconds: the timeout of HTTP requests.
    """

    of = "the services"
    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_", extra="ignore")

    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    dvc_remote: str | None = None
    dvc_remote_endpoint_url: str | None = None
    mlflow_backend_store_uri: SecretStr | None = None
    mlflow_artifacts_destination: str | None = None
    http_timeout_seconds: int = Field(default=10, ge=1)

    def tracking_uri(self, workdir: Path) -> str:
        """The MLflow tracking URI to use."""
        return self.mlflow_tracking_uri or f"sqlite:///{workdir / MLFLOW_DATABASE}"


class RetrySettings(EnvironmentSettings):
    """For how long a call to a service is tried again.

    Attributes:
        minutes: from ``ERASEDIFF_RETRY_MINUTES``, for each call; 0: never. In a pod, where nobody waits at a terminal, the default is 10.
    """

    of = "retries"
    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_RETRY_", extra="ignore", frozen=True)

    minutes: float = Field(default_factory=lambda: 10.0 if in_pod() else 0.0, ge=0, le=24 * 60, allow_inf_nan=False)


class RunSettings(EnvironmentSettings):
    """A run on Kubeflow.

    Attributes:
        pending_minutes: for how long a run keeps the workdir while its next step waits for a node (``ERASEDIFF_RUN_PENDING_MINUTES``).
    """

    of = "the run"
    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_RUN_", extra="ignore", frozen=True)

    pending_minutes: float = Field(default=60.0, gt=0, le=7 * 24 * 60, allow_inf_nan=False)


class LogSettings(EnvironmentSettings):
    """The log of a step.

    Attributes:
        form: from ``ERASEDIFF_LOG``: ``text`` for people, ``json`` for collectors (an object a line).
        seconds: how often long work says how far it is (``ERASEDIFF_LOG_SECONDS``).
    """

    of = "the log"
    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_LOG_", extra="ignore", frozen=True)

    form: Literal["text", "json"] = Field(default="text", validation_alias="ERASEDIFF_LOG")
    seconds: float = Field(default=10.0, gt=0)


class KubeflowSettings(EnvironmentSettings):
    """Where Kubeflow Pipelines is, for the commands that talk to it.

    Attributes:
        host: its address, from ``ERASEDIFF_KFP_HOST`` or ``KFP_HOST``.
        token: bearer token for it, from ``ERASEDIFF_KFP_TOKEN`` or ``KFP_TOKEN``.
    """

    of = "Kubeflow Pipelines"
    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_KFP_", extra="ignore", frozen=True)

    host: str | None = Field(default=None, validation_alias=AliasChoices("ERASEDIFF_KFP_HOST", "KFP_HOST"))
    token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("ERASEDIFF_KFP_TOKEN", "KFP_TOKEN"))


class RollOutSettings(EnvironmentSettings):
    """Where and how a model is rolled out, read from the environment with the prefix ``ERASEDIFF_ROLL_OUT_``.

    Attributes:
        backend: ``none``, ``deployment`` (plain Deployments and Services) or ``kserve`` (an InferenceService).
        namespace: the namespace of all objects.
        name: the name of the stable Deployment and Service, or of the InferenceService; beside one in mode ``Standard``, clients ask the Service
            ``NAME-stable``.
        publish_to: where exported models are published: ``s3://BUCKET/PREFIX``, or a folder that lies on the volume of ``claim``.
        claim: the PersistentVolumeClaim that holds ``publish_to``, if that is a folder.
        claim_mount: where that claim is mounted here; pods get it at the same path, read-only.
        image: the serving image, by digest or by an immutable tag (``deployment``).
        pull_policy: its pull policy; ``Never`` for images that are preloaded on the nodes.
        replicas: pods of the first stable version; later versions keep the current number (``deployment``). Of every version, at least (``kserve``).
        share_seconds: how long the canary gets its share of the traffic before the promotion.
        canary_percent: the canary's share of the traffic through KServe's ingress; with 0, ``NAME-stable`` sends it nothing either (``kserve``).
        mode: KServe's deployment mode, ``Standard`` or ``Knative`` (``kserve``).
        environment_secret: an optional Secret whose keys become variables of the pods, such as S3 credentials.
        environment_config_map: the same for a ConfigMap.
        service_account: the pods' service account.
        timeout_seconds: for the whole roll-out; a roll-back gets the same time again.
        smoke_seconds: for each answer of the canary.
        drain_seconds: how long a terminating pod keeps answering before it gets SIGTERM; how long pods stay that a Service has left (``kserve``).
        cpu, memory, cpu_limit, memory_limit: a pod's requests and limits.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_ROLL_OUT_", extra="ignore", frozen=True)
    of = "the roll-out"

    backend: BackendName = "none"
    namespace: Name = "erasediff"
    name: Name = "erasediff"
    publish_to: str | None = None
    claim: Name | None = None
    claim_mount: str = "/workdir"
    image: str | None = None
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    replicas: int = Field(default=2, ge=1)
    share_seconds: int = Field(default=60, ge=0)
    canary_percent: int = Field(default=10, ge=0, le=100)
    mode: Literal["Standard", "Knative"] = "Standard"
    environment_secret: str = "erasediff-serving"  # noqa: S105 - the name of a Secret, not a secret
    environment_config_map: str = "erasediff-serving-environment"
    service_account: str = "erasediff-serving"
    timeout_seconds: int = Field(default=900, ge=1)
    smoke_seconds: int = Field(default=120, ge=1)
    drain_seconds: int = Field(default=5, ge=0)
    cpu: str = "500m"
    memory: str = "512Mi"
    cpu_limit: str = "2"
    memory_limit: str = "2Gi"

    @classmethod
    def load(cls) -> Self:
        """The settings; everything that the backend needs is set.

        Raises:
            BadInput: a variable has an invalid value, or one that the backend needs is missing.
        """
        settings = super().load()
        settings.check()
        return settings

    def check(self) -> None:
        """Raise BadInput if a setting is missing."""
        if self.backend == "none":
            return
        if not self.publish_to:
            raise BadInput("no address to publish to is set: set ERASEDIFF_ROLL_OUT_PUBLISH_TO to s3://BUCKET/PREFIX or to a folder on a claim.")
        if self.backend == "deployment" and not self.image:
            raise BadInput("no serving image is set: set ERASEDIFF_ROLL_OUT_IMAGE to the image that runs `erasediff serve`.")
        if not self.publish_to.startswith("s3://"):
            if "://" in self.publish_to:
                raise BadInput(
                    f"the roll-out cannot publish to {self.publish_to}: set ERASEDIFF_ROLL_OUT_PUBLISH_TO to s3://BUCKET/PREFIX or to a folder."
                )
            if not self.claim or not Path(self.publish_to).is_relative_to(self.claim_mount):
                raise BadInput(
                    f"pods cannot read {self.publish_to}: set ERASEDIFF_ROLL_OUT_CLAIM to its claim, and …_CLAIM_MOUNT to where that is mounted here."
                )

    def digest(self) -> str:
        """The digest of these settings."""
        return sha256_bytes(canonical_json(self.model_dump(mode="json")))


class LedgerSettings(EnvironmentSettings):
    """The ledger's address, and the operator's terms.

    Attributes:
        url: from ``ERASEDIFF_LEDGER``: ``postgresql://…`` or ``sqlite:///FILE``; ``ledger.db`` in the workdir if unset. It is never printed, since it
            may hold a password.
        own_days: days until a request of the regime ``own`` is due (``ERASEDIFF_LEDGER_OWN_DAYS``).
        zone: the time zone of deadlines (``ERASEDIFF_LEDGER_ZONE``), a name of the time zone database.
        approvals: how many people must approve a model before it is rolled out (``ERASEDIFF_LEDGER_APPROVALS``).
        approvers: a folder with each approver's public key as ``NAME.pub`` (``ERASEDIFF_LEDGER_APPROVERS``).
        batch: how many classes one run may erase together (``ERASEDIFF_LEDGER_BATCH``).
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_LEDGER_", extra="ignore", frozen=True)
    of = "the ledger"

    url: SecretStr | None = Field(default=None, validation_alias="ERASEDIFF_LEDGER")
    own_days: int = Field(default=30, ge=1, le=3650)
    zone: Zone = "UTC"
    approvals: int = Field(default=0, ge=0, le=8)
    approvers: Path | None = None
    batch: int = Field(default=4, ge=1, le=1000)

    def where(self, workdir: Path) -> str | Path:
        """The ledger's URL, or the workdir that holds it."""
        return self.url.get_secret_value() if self.url and self.url.get_secret_value() else workdir

    def terms(self) -> Terms:
        """The operator's terms."""
        return Terms(own_days=self.own_days, zone=self.zone, approvals=self.approvals)


class SigningSettings(EnvironmentSettings):
    """The signing key and the time stamp authority, read from the environment with the prefix ``ERASEDIFF_SIGNING_``.

    Attributes:
        key: a private key in PEM, or a URI of a key that securesystemslib supports (``hsm:``, ``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``).
        public_key: the public key in PEM; needed if ``key`` is a URI.
        passphrase: of the private key, or the PIN of the token.
        timestamp_url: a time stamp authority (RFC 3161); no time stamp if unset.
        code_revision: the commit of the code, if the image sets it.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_SIGNING_", extra="ignore", frozen=True)
    of = "signing"

    key: str | None = None
    public_key: Path | None = None
    passphrase: SecretStr | None = None
    timestamp_url: str | None = None
    code_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None
