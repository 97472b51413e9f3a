"""Submit a compiled pipeline to Kubeflow Pipelines, or list what is there: ``python submit.py DOCUMENT.json RESULT.json``.

``DOCUMENT.json`` is a ``Submission`` or an ``Inquiry`` of ``erasediff.records.submission``; the token is in the variable ``ERASEDIFF_KFP_TOKEN``.
``RESULT.json`` gets the result, or an error sentence under ``error``.
"""

import base64
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import kfp
import kfp_server_api
import urllib3
from kfp_server_api.exceptions import ApiException, OpenApiException

PAGE, LISTED = 100, 20
POD_LOG, KEPT_CHARACTERS = "main-logs", 65536
"""What Argo Workflows calls the log of a pod that it keeps in the bucket, and how much of its end is handed on."""


class Refused(Exception):
    """The error sentence for the caller."""


def answer(document: dict) -> dict:
    """Do what the document's action says.

    Raises:
        Refused: why it could not be done.
    """
    host = document["host"]
    socket.setdefaulttimeout(document["timeout_seconds"])  # the generated client has no timeout of its own
    token = os.environ.get("ERASEDIFF_KFP_TOKEN") or None
    try:
        check_server(host, document["namespace"], token, document["timeout_seconds"])
        client = kfp.Client(
            host=host, namespace=document["namespace"] or "kubeflow", existing_token=token, ssl_ca_cert=os.environ.get("SSL_CERT_FILE")
        )
        kubeflow = KubeflowClient(client, document, token)
        return getattr(kubeflow, document["action"])()
    except ApiException as error:
        if not error.status:  # the client's error for an answer that it cannot read
            raise Refused(f"{host} does not answer as Kubeflow Pipelines does: check --host.") from None
        raise Refused(refusal(host, error.status, error.body)) from None
    except (urllib3.exceptions.HTTPError, TimeoutError, OSError) as error:
        raise Refused(f"{host} does not answer ({type(error).__name__}): check --host, and that it can be reached from here.") from None
    except OpenApiException:
        raise Refused(f"{host} does not answer as Kubeflow Pipelines does: check --host.") from None


def check_server(host: str, namespace: str | None, token: str | None, seconds: int) -> None:
    """Check the API's health once: the client would retry five times, and read a login page as an empty answer."""
    found = get(f"{host}/apis/v2beta1/healthz", token, seconds)
    if found.status == 404:
        raise Refused(f"{host} has no API v2beta1 (404): give the address of a Kubeflow Pipelines 2 as --host, with the path before /apis.")
    if found.status != 200:
        raise Refused(refusal(host, found.status, found.data))
    try:
        health = json.loads(found.data)
    except ValueError:
        health = None
    if not isinstance(health, dict):
        raise Refused(f"{host} does not answer as Kubeflow Pipelines does: check --host, and that no login page stands before it.")
    if health.get("multi_user") and not namespace:
        raise Refused(f"{host} serves several users: set your namespace with --namespace.")


def get(address: str, token: str | None, seconds: int) -> urllib3.BaseHTTPResponse:
    """Ask the API once, past the generated client."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    pool = urllib3.PoolManager(timeout=seconds, retries=False, ca_certs=os.environ.get("SSL_CERT_FILE"))
    return pool.request("GET", address, headers=headers, redirect=False)


def refusal(host: str, status: int, body: object) -> str:
    """The sentence for an HTTP error; it quotes a part of the server's message."""
    if status in (401, 403):
        return f"{host} refuses this user ({status}): set ERASEDIFF_KFP_TOKEN to a token that may use this namespace."
    if 300 <= status < 400:
        return f"{host} wants a login ({status}): set ERASEDIFF_KFP_TOKEN, or give the address behind the login as --host."
    try:
        document = json.loads(body if isinstance(body, str | bytes) else "")
        message = document.get("error_message") or document.get("message") or document.get("error") if isinstance(document, dict) else ""
    except ValueError:
        message = ""
    quoted = f", {' '.join(message.split())[:200].rstrip('.')}" if isinstance(message, str) and message else ""
    advice = "try again later" if status >= 500 or status == 429 else "check --host and the options"
    return f"{host} answers {status}{quoted}: {advice}."


class KubeflowClient:
    """One client and the document to submit; the document's actions are methods."""

    def __init__(self, client: kfp.Client, document: dict, token: str | None) -> None:
        self.client, self.document, self.token = client, document, token
        self.namespace: str | None = document["namespace"]

    def run(self) -> dict:
        """Create a run of the pinned version."""
        experiment, pipeline, version, uploaded = self.prepared()
        created = self.client.run_pipeline(
            experiment_id=experiment,
            job_name=self.document["name"],
            params=self.document["parameters"],
            pipeline_id=pipeline,
            version_id=version,
            service_account=self.document["service_account"],
        )
        return {"run_id": self.named(created.run_id, "run"), "uploaded": uploaded}

    def schedule(self) -> dict:
        """Set the schedule of this name.

        An equal one stays. A changed one is created disabled, the old one is deleted, and then the new one is enabled:
        an interruption never leaves two active schedules, and running the command again continues.
        """
        experiment, pipeline, version, _ = self.prepared()
        present = self.schedules(experiment, self.document["name"])
        same = [s for s in present if self.matches_document(s, pipeline, version)]
        others = [s for s in present if s not in same[:1]]
        kept = same[0] if same else self.create_schedule(experiment, pipeline, version, enabled=not others)
        for other in others:
            self.client.delete_recurring_run(self.named(other.recurring_run_id, "schedule"))
        identifier = self.named(kept.recurring_run_id, "schedule")
        asleep = kept.mode != "ENABLE"
        if asleep:
            self.client.enable_recurring_run(identifier)
        change = "replaced" if others else "created" if not same else "enabled" if asleep else "unchanged"
        return {"schedule_id": identifier, "change": change}

    def list_runs(self) -> dict:
        """The newest runs of the experiment."""
        experiment = self.experiment()
        found = self.client.list_runs(page_size=LISTED, sort_by="created_at desc", **experiment).runs or [] if experiment else []
        runs = [
            {
                "run_id": self.named(run.run_id, "run"),
                "name": run.display_name,
                "state": run.state,
                "created_at": run.created_at.isoformat(),
                "finished_at": run.finished_at.isoformat() if run.finished_at is not None and run.finished_at > run.created_at else None,
            }
            for run in found
        ]
        return {"runs": runs}

    def look(self) -> dict:
        """A run and its tasks."""
        found = self.client.get_run(self.document["run"])
        details = found.run_details.task_details or [] if found.run_details is not None else []
        tasks = [
            {
                "name": task.display_name,
                "state": task.state,
                "seconds": (task.end_time - task.start_time).total_seconds() if task.start_time is not None and task.end_time is not None else None,
                "started": task.start_time.isoformat() if task.start_time is not None else None,
                "children": [child.pod_name for child in task.child_tasks or [] if child.pod_name is not None],
            }
            for task in details
            if task.display_name is not None
        ]
        return {"run_id": self.named(found.run_id, "run"), "state": found.state, "tasks": tasks}

    def read_log(self) -> dict:
        """The end of the log that Argo kept of a pod; empty where the API does not hand it out, or not to this user.

        The generated client does not know the operation, because the API server streams the answer.
        """
        run, node = quote(self.document["run"], safe=""), quote(self.document["node"], safe="")
        path = f"/apis/v2beta1/runs/{run}/nodes/{node}/artifacts/{POD_LOG}:read"
        found = get(f"{self.document['host']}{path}", self.token, self.document["timeout_seconds"])
        try:
            text = base64.b64decode(json.loads(found.data)["data"]).decode(errors="replace") if found.status == 200 else ""
        except (ValueError, KeyError, TypeError):
            text = ""
        return {"text": text[-KEPT_CHARACTERS:]}

    def terminate(self) -> dict:
        """End a run; Kubeflow stops its pods."""
        self.client.terminate_run(self.document["run"])
        return {}

    def list_schedules(self) -> dict:
        """The schedules of the experiment."""
        return {"schedules": [self.described(found) for found in self.every_schedule()]}

    def pause(self) -> dict:
        """Switch a schedule off; its runs go on."""
        return self.changed(self.client.disable_recurring_run)

    def resume(self) -> dict:
        """Switch a schedule on."""
        return self.changed(self.client.enable_recurring_run)

    def delete(self) -> dict:
        """Delete a schedule; its runs stay."""
        return self.changed(self.client.delete_recurring_run)

    def changed(self, change: Callable[[str], object]) -> dict:
        """Change the one schedule that the document names."""
        wanted = self.document["schedule"]
        named = [found for found in self.every_schedule() if wanted in (found.recurring_run_id, found.display_name)]
        if len(named) != 1:
            what = "no schedule" if not named else f"{len(named)} schedules"
            raise Refused(f"experiment {self.document['experiment']!r} has {what} {wanted!r}: take an identifier from `erasediff schedules list`.")
        change(self.named(named[0].recurring_run_id, "schedule"))
        return self.described(named[0])

    def described(self, found: kfp_server_api.V2beta1RecurringRun) -> dict:
        """A schedule, as the caller gets it."""
        cron = found.trigger.cron_schedule.cron if found.trigger is not None and found.trigger.cron_schedule is not None else ""
        identifier = self.named(found.recurring_run_id, "schedule")
        return {"schedule_id": identifier, "name": found.display_name, "cron": cron, "enabled": found.mode == "ENABLE"}

    def experiment(self) -> dict:
        """The experiment as an argument of the client; empty if there is none of this name."""
        name = equals(self.document["experiment"])
        found = self.client.list_experiments(filter=name, page_size=PAGE, namespace=self.namespace).experiments or []
        return {"experiment_id": self.named(found[0].experiment_id, "experiment")} if found else {}

    def every_schedule(self) -> list[kfp_server_api.V2beta1RecurringRun]:
        """Every schedule of the experiment."""
        experiment = self.experiment()
        return self.schedules(experiment["experiment_id"]) if experiment else []

    def prepared(self) -> tuple[str, str, str, bool]:
        """The experiment, the pipeline and its version with this content; made where they are missing."""
        pipeline = self.pipeline() or self.create_pipeline()
        version, uploaded = self.version(pipeline), False
        if version is None:
            path, name = self.document["pipeline_file"], self.document["version"]
            created = self.client.upload_pipeline_version(path, name, pipeline_id=pipeline)
            version, uploaded = self.named(created.pipeline_version_id, "version"), True
        experiment = self.client.create_experiment(self.document["experiment"], namespace=self.namespace)
        return self.named(experiment.experiment_id, "experiment"), pipeline, version, uploaded

    def pipeline(self) -> str | None:
        """The pipeline of this name."""
        found = self.client.list_pipelines(filter=equals(self.document["pipeline"]), page_size=PAGE, namespace=self.namespace).pipelines or []
        return self.named(found[0].pipeline_id, "pipeline") if found else None

    def create_pipeline(self) -> str:
        """Create an empty pipeline: an upload would give its first version the pipeline's name and not its digest."""
        name = self.document["pipeline"]
        body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=self.namespace)
        try:
            return self.named(self.client.pipelines.pipeline_service_create_pipeline(body).pipeline_id, "pipeline")
        except ApiException as error:
            if error.status == 409 and (found := self.pipeline()) is not None:  # another submission created it first
                return found
            raise

    def version(self, pipeline: str) -> str | None:
        """The version that has this content, by its name."""
        found = self.client.list_pipeline_versions(pipeline, filter=equals(self.document["version"]), page_size=PAGE).pipeline_versions or []
        return self.named(found[0].pipeline_version_id, "version") if found else None

    def schedules(self, experiment: str, name: str | None = None) -> list[kfp_server_api.V2beta1RecurringRun]:
        """The schedules of an experiment, every one or those of a name."""
        found, token = [], ""
        while True:
            page = self.client.list_recurring_runs(token, PAGE, experiment_id=experiment, filter=None if name is None else equals(name))
            found += page.recurring_runs or []
            token = page.next_page_token or ""
            if not token:
                return found

    def create_schedule(self, experiment: str, pipeline: str, version: str, enabled: bool) -> kfp_server_api.V2beta1RecurringRun:
        """Create the schedule: one run at a time, without catching up on missed runs."""
        return self.client.create_recurring_run(
            experiment_id=experiment,
            job_name=self.document["name"],
            cron_expression=self.document["cron"],
            max_concurrency=1,
            no_catchup=True,
            params=self.document["parameters"],
            pipeline_id=pipeline,
            version_id=version,
            enabled=enabled,
            service_account=self.document["service_account"],
        )

    def matches_document(self, found: kfp_server_api.V2beta1RecurringRun, pipeline: str, version: str) -> bool:
        """Whether a schedule, enabled or not, matches the document."""
        pinned, trigger, config = found.pipeline_version_reference, found.trigger, found.runtime_config
        wanted_account = self.document["service_account"]
        return (
            pinned is not None
            and (pinned.pipeline_id, pinned.pipeline_version_id) == (pipeline, version)
            and trigger is not None
            and trigger.cron_schedule is not None
            and trigger.cron_schedule.cron == self.document["cron"]
            and config is not None
            and config.parameters == self.document["parameters"]
            and str(found.max_concurrency) == "1"
            and found.no_catchup is True
            and (wanted_account is None or found.service_account == wanted_account)
        )

    def named(self, identifier: object, what: str) -> str:
        """The identifier in the server's answer; refuse an answer without one."""
        if not isinstance(identifier, str) or not identifier:
            raise Refused(f"{self.document['host']} names no {what}, so it does not answer as Kubeflow Pipelines does: check --host.")
        return identifier


def equals(name: str) -> str:
    """The API's filter for a display name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def main(source: Path, target: Path) -> int:
    """Carry out the document and write the result."""
    try:
        result, code = answer(json.loads(source.read_text())), 0
    except Refused as refused:
        result, code = {"error": str(refused)}, 2
    target.write_text(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
