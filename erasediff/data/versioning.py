"""The one adapter over DVC: it publishes a folder to a remote under a version named by its content, and fetches it by that name.

Every call works in a throw-away DVC workspace inside the caller's scratch folder and removes it at its end, so that
the only copies are the caller's own and the remote's. A workspace that a killed process left behind is removed by the
next call. DVC's settings and caches outside the scratch folder are neither read nor written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from erasediff.data.rows import THREADS
from erasediff.data.workspace import throwaway_workspace
from erasediff.errors import BadInput, EraseDiffError, IntegrityError, Outage, Unreachable, explain_os_error
from erasediff.files import explain_disk_errors, publish_folder, write_atomic
from erasediff.retries import retried

_OUT = "forget"
_REMOTE = "forget"
_PROBE = "probe"
_VERSION = re.compile(r"[0-9a-f]{32}\.dir")
_ENDPOINT = re.compile(r"https?://[^\s/?#]+/?")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
_MAX_LISTING_BYTES = 256 << 20
_CONNECT_SECONDS = 3
_PROBE_READ_SECONDS = 3
_READ_SECONDS = 60

_Listing = dict[str, str]
"""Relative path to md5."""


class ForgetStore:
    """Forget sets in a DVC remote.

    Args:
        remote: any URL that DVC understands, or a folder.
        endpoint_url: where an S3-compatible store answers; for ``s3://`` remotes only.
        within: a folder that may be moved as a whole: a remote inside it is shown by its relative path.

    Raises:
        BadInput: ``endpoint_url`` is no address.
    """

    def __init__(self, remote: str, endpoint_url: str | None = None, within: Path | None = None) -> None:
        """See the class."""
        self._local = _local_folder(remote)
        self._url = remote if self._local is None else str(self._local)
        self._endpoint_url, self._within = endpoint_url, within
        self._s3 = urlsplit(remote).scheme == "s3"
        if endpoint_url is not None and not _ENDPOINT.fullmatch(endpoint_url):
            raise BadInput("the endpoint of the DVC remote is no http:// or https:// address: correct its setting.")

    @property
    def url(self) -> str:
        """The remote as the settings name it, possibly with a user and password: never print it."""
        return self._url

    @property
    def shown(self) -> str:
        """The remote as it may be printed: without user, password or query."""
        if self._local is not None:
            inside = self._within is not None and self._local.is_relative_to(self._within)
            return os.path.relpath(self._local, self._within) if inside else str(self._local)
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def publish(self, folder: Path, scratch: Path) -> str:
        """Send a folder to the remote and check that the remote holds all of it; again while the remote is away.

        Args:
            folder: regular files only; it is read and left as it is.
            scratch: where the throw-away workspace may be made.

        Returns:
            The version ``<md5>.dir``: content only, so that the same content always has the same version.

        Raises:
            BadInput: the folder is missing, empty or holds links; the remote does not exist or refuses the credentials.
            Unreachable: the remote does not answer, or took only a part.
            IntegrityError: the remote does not hold what was sent.
        """
        _check_folder(folder)
        self._check_writable()
        return retried(lambda: self._publish(folder, scratch))

    def _publish(self, folder: Path, scratch: Path) -> str:
        with self._workspace(scratch) as repo:
            copy = Path(repo.root_dir) / _OUT
            with explain_disk_errors(scratch):
                shutil.copytree(folder, copy)
            expected = _inventory(copy)
            (stage,) = repo.add(str(copy))
            version = str(stage.outs[0].hash_info.value)
            with self._remote_errors():
                self._transfer(repo, lambda: repo.push(remote=_REMOTE))
                self._prove(repo, version, expected, copy)
        return version

    def fetch(self, version: str, target: Path, scratch: Path) -> None:
        """Fetch exactly one version from the remote into ``target``, completely or not at all; again while the remote is away.

        Args:
            version: ``<md5>.dir`` as :meth:`publish` returned it.
            target: the folder to make; it replaces an existing one.
            scratch: where the throw-away workspace may be made.

        Raises:
            BadInput: the version is none or is not in the remote, or the remote refuses.
            Unreachable: the remote does not answer.
            IntegrityError: what the remote holds under this version is not what the version names.
        """
        if not _VERSION.fullmatch(version):
            raise BadInput(f"{version!r} is not a version of a forget set: give the <md5>.dir that publishing returned.")
        if target.exists() and not target.is_dir():
            raise BadInput(f"{target} is a file, so no folder can take its place: choose another target.")
        self._check_readable()
        retried(lambda: self._fetch(version, target, scratch))

    def _fetch(self, version: str, target: Path, scratch: Path) -> None:
        with self._workspace(scratch) as repo:
            workspace = Path(repo.root_dir)
            with self._remote_errors():
                listing = self._listing(repo, version)
                # JSON is YAML; the md5 of the listing is all that DVC needs to know.
                pointer = {"outs": [{"md5": version, "hash": "md5", "path": _OUT}]}
                write_atomic(workspace / f"{_OUT}.dvc", json.dumps(pointer).encode())
                self._transfer(repo, lambda: repo.pull(targets=[f"{workspace / _OUT}.dvc"], remote=_REMOTE))
            # DVC takes a cached file's name for its content, and by default does not hash what it downloads.
            if _inventory(workspace / _OUT) != listing:
                raise IntegrityError(f"the DVC remote {self.shown} holds other bytes than {version} names: publish again.")
            publish_folder(target.parent, lambda new: _move_into(workspace / _OUT, new, target.name))

    def _transfer(self, repo: Any, transfer: Callable[[], object]) -> None:
        """Make a transfer. Where files were left out, DVC does not say why: ask whether the remote is away, and transfer once more if it is not."""
        from dvc.exceptions import DownloadError, UploadError

        try:
            transfer()
        except (DownloadError, UploadError):
            self._probe(repo)
            transfer()

    def _prove(self, repo: Any, version: str, expected: _Listing, copy: Path) -> None:
        """List the remote itself; DVC's own status reads the index that the push has just written."""
        if self._listing(repo, version) != expected:
            raise IntegrityError(f"the DVC remote {self.shown} lists other files than were sent: publish again.")
        odb = _objects(repo)
        for name, md5 in expected.items():
            path = odb.oid_to_path(md5)
            try:
                size = odb.fs.info(path)["size"]
            except FileNotFoundError:
                raise IntegrityError(f"the DVC remote {self.shown} does not hold {name} after the push: publish again.") from None
            if size != (copy / name).stat().st_size:
                raise IntegrityError(f"the DVC remote {self.shown} holds a part of {name} only: remove its object {path} and publish again.")

    def _listing(self, repo: Any, version: str) -> _Listing:
        """Read the files of a version from the remote, checked against the version's md5."""
        odb = _objects(repo)
        path = odb.oid_to_path(version)
        try:
            size = odb.fs.info(path)["size"]
        except FileNotFoundError:
            raise BadInput(f"version {version} is not in the DVC remote {self.shown}: check both, or publish it again.") from None
        if size > _MAX_LISTING_BYTES:
            raise BadInput(f"version {version} in the DVC remote {self.shown} lists too many files: pack them in shards.")
        data = odb.fs.cat_file(path)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != version.removesuffix(".dir"):
            raise IntegrityError(f"the file list of version {version} in the DVC remote {self.shown} is damaged: publish it again.")
        return _parse_listing(data, version)

    @contextlib.contextmanager
    def _workspace(self, scratch: Path) -> Iterator[Any]:
        """Yield an open ``dvc.repo.Repo`` without SCM whose remote has answered; nothing of it is left afterwards."""
        with throwaway_workspace(scratch) as workspace, self._repo(workspace) as repo:
            with self._remote_errors():
                self._probe(repo)
            yield repo

    @contextlib.contextmanager
    def _repo(self, workspace: Path) -> Iterator[Any]:
        from dvc.repo import Repo

        Repo.init(str(workspace), no_scm=True).close()
        # Handed over, not written: DVC writes its configuration in ASCII, and a path may hold any letter.
        config = {
            "core": {"remote": _REMOTE, "analytics": False, "autostage": False, "checksum_jobs": THREADS},
            "cache": {"type": "hardlink,copy"},
            "remote": {_REMOTE: self._remote_config(_READ_SECONDS), _PROBE: self._remote_config(_PROBE_READ_SECONDS)},
        }
        with self._remote_errors():
            repo = Repo(str(workspace), config=config)
        with repo:
            yield repo

    def _remote_config(self, read_seconds: int) -> dict[str, object]:
        config: dict[str, object] = {"url": self._url}
        if self._s3:
            config |= {"connect_timeout": _CONNECT_SECONDS, "read_timeout": read_seconds}
            if self._endpoint_url is not None:
                config["endpointurl"] = self._endpoint_url
        return config

    def _probe(self, repo: Any) -> None:
        """Fail before any transfer if the remote does not answer; a transfer would retry for every file."""
        remote = repo.cloud.get_remote(_PROBE)
        try:
            remote.fs.info(remote.path)
        except FileNotFoundError:
            if self._s3:
                self._probe_bucket(remote)

    def _probe_bucket(self, remote: Any) -> None:
        bucket = remote.path.strip("/").partition("/")[0]
        try:
            remote.fs.info(bucket)
        except FileNotFoundError:
            raise BadInput(f"the bucket of the DVC remote {self.shown} does not exist: create the bucket {bucket}.") from None
        except PermissionError:
            # Credentials may be limited to a prefix, and this one has answered already: the transfer decides.
            return

    def _check_writable(self) -> None:
        if self._local is None:
            return
        place = self._local if self._local.exists() else self._local.parent
        if not place.is_dir():
            raise BadInput(f"the DVC remote {self._local} cannot be made, for {place} is not a folder: create it first.")
        if not os.access(place, os.W_OK | os.X_OK):
            raise BadInput(f"the DVC remote {self._local} cannot be written: change the permissions of {place}.")

    def _check_readable(self) -> None:
        if self._local is not None and not self._local.is_dir():
            raise BadInput(f"the DVC remote {self._local} does not exist: check the remote's address.")

    @contextlib.contextmanager
    def _remote_errors(self) -> Iterator[None]:
        """Turn a remote's failures into error sentences; other errors pass unchanged.

        The causes' own texts are left out of the sentences, because they can quote credentials.
        """
        from dvc.exceptions import DvcException

        try:
            yield
        except EraseDiffError:
            raise
        except (DvcException, OSError, ImportError, *_network_errors()) as error:
            raise self._sentence(error) from error

    def _sentence(self, error: Exception) -> EraseDiffError:
        from dvc.config import ConfigError
        from dvc.exceptions import DownloadError, DvcException, UploadError
        from dvc_objects.fs.errors import AuthError, RemoteMissingDepsError

        remote = f"the DVC remote {self.shown}"
        if isinstance(error, OSError) and self._local is not None and (known := explain_os_error(error, self._local)) is not None:
            return known
        if isinstance(error, ImportError | RemoteMissingDepsError):
            return BadInput(f"{remote} needs a DVC plug-in that is not installed: install dvc with the extra for it.")
        if isinstance(error, ConfigError):
            return BadInput(f"{remote} is no address that DVC understands: give s3://bucket/prefix, another DVC URL or a folder.")
        if isinstance(error, PermissionError | AuthError) or type(error).__name__ in _NO_CREDENTIALS:
            return BadInput(f"{remote} refuses access: check the credentials in the environment and what they allow.")
        if isinstance(error, UploadError):
            return Unreachable(f"{remote} did not take all of the files: check its space and permissions.")
        if isinstance(error, DownloadError):
            return BadInput(f"{remote} does not hold all files of the version: publish the forget set again.")
        where = f" at {_without_user(self._endpoint_url)}" if self._s3 and self._endpoint_url else ""
        for_good = isinstance(error, DvcException) or getattr(error, "errno", None) == errno.EINVAL  # what s3fs makes of a request that is wrong
        kind = Unreachable if for_good or self._local is not None else Outage
        return kind(f"{remote}{where} does not answer ({type(error).__name__}): check its address and the network.")


def _local_folder(remote: str) -> Path | None:
    """The folder a remote names, absolute because DVC reads relative ones from inside its workspace."""
    if "://" not in remote:
        return Path(remote).expanduser().absolute()
    return Path(urlsplit(remote).path) if remote.startswith("file://") else None


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BadInput(f"the folder {folder} to publish does not exist: check the path.")
    entries = list(folder.rglob("*"))
    strange = [path for path in entries if path.is_symlink() or not (path.is_file() or path.is_dir())]
    if strange:
        raise BadInput(f"{strange[0]} is a link or a device: only plain files can be published.")
    if not any(path.is_file() for path in entries):
        raise BadInput(f"the folder {folder} to publish holds no files: pack the forget set first.")


def _inventory(folder: Path) -> _Listing:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(THREADS) as pool:
        return {path.relative_to(folder).as_posix(): md5 for path, md5 in zip(files, pool.map(_md5_file, files), strict=True)}


def _md5_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _parse_listing(data: bytes, version: str) -> _Listing:
    """Read a ``.dir`` object: the names in it become paths, so none of them may leave the folder."""
    listing: _Listing = {}
    try:
        for entry in json.loads(data):
            name, md5 = entry["relpath"], entry["md5"]
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or not _MD5.fullmatch(md5):
                raise IntegrityError(f"version {version} names a path outside its folder: do not use it.")
            listing[name] = md5
    except (ValueError, TypeError, KeyError):
        raise IntegrityError(f"the file list of version {version} is not one that DVC writes: publish it again.") from None
    return listing


def _objects(repo: Any) -> Any:
    """The remote's object store, without cached directory listings."""
    odb = repo.cloud.get_remote_odb(_REMOTE, "status")
    odb.fs.fs.invalidate_cache()
    return odb


def _move_into(source: Path, new: Path, name: str) -> str:
    for path in source.iterdir():
        shutil.move(path, new / path.name)
    return name


def _network_errors() -> tuple[type[Exception], ...]:
    """Errors of the S3 client, which are no ``OSError``; none when DVC is installed without S3."""
    if importlib.util.find_spec("botocore") is None:
        return ()
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)
