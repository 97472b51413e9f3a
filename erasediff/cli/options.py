"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

WorkdirOption = Annotated[Path, typer.Option("--workdir", help="Folder for runs, models and reports; made if missing.")]
ConfigOption = Annotated[Optional[Path], typer.Option("--config", help="The run's configuration (YAML); the demo's if unset.")]
PolicyOption = Annotated[
    Optional[Path], typer.Option("--policy", help="The gate's policy: a YAML file, 'class-conditional' (if unset) or 'class-conditional-strict'.")
]
TierOption = Annotated[Optional[int], typer.Option("--tier", min=1, max=2, help="2: the gate runs the attacks too; the policy's tier if unset.")]
DatasetOption = Annotated[Optional[str], typer.Option("--dataset", help="'digits', or KIND:PATH with KIND folder, imagefolder, shards or idx.")]
ResizeOption = Annotated[Optional[int], typer.Option("--resize", help="Side in pixels to reduce the dataset's images to; dataset.size if unset.")]
RunOption = Annotated[Optional[str], typer.Option("--run", help="Name of the attempt; the latest one if unset.")]
ProfileOption = Annotated[str, typer.Option("--profile", help="The kind of cluster: 'cpu', 'gpu' or 'gpu-multi' (needs Kubeflow Trainer).")]
CpuOption = Annotated[Optional[str], typer.Option("--cpu", help="CPUs of each training step, such as 2 or 500m; from the model if unset.")]
MemoryOption = Annotated[Optional[str], typer.Option("--memory", help="Memory of each training step, such as 4Gi; from the model if unset.")]
GpusOption = Annotated[Optional[int], typer.Option("--gpus", min=0, help="GPUs of each training step; the profile's if unset.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; the exit code says how it ended.")]
TerminateOption = Annotated[bool, typer.Option("--terminate-on-interrupt", help="With --wait: Ctrl-C terminates the run instead of leaving it.")]
HostOption = Annotated[Optional[str], typer.Option("--host", help="Address of Kubeflow Pipelines; ERASEDIFF_KFP_HOST or KFP_HOST if unset.")]
NamespaceOption = Annotated[Optional[str], typer.Option("--namespace", help="Your namespace, if Kubeflow has several users.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Kubeflow's folder for runs; made if missing.")]
ServiceAccountOption = Annotated[Optional[str], typer.Option("--service-account", help="The pods' service account; Kubeflow's default if unset.")]
ClassesOption = Annotated[
    Optional[Path], typer.Option("--classes", help="A file with the names of the classes in their order, one a line; the dataset's if unset.")
]
RequestsOption = Annotated[bool, typer.Option("--requests", help="Instead of one class: the open requests in the cluster's ledger.")]
LabelOption = Annotated[str, typer.Option("--forget-label", help="The name of the class to forget.")]
OptionalLabelOption = Annotated[Optional[str], typer.Option("--forget-label", help="The name of the class to forget.")]
SeedOption = Annotated[Optional[int], typer.Option("--seed", min=0, help="Seed of all randomness.")]

WORKDIR = Path("erasediff-work")
CronOption = Annotated[Optional[str], typer.Option("--cron", help="When to run: six fields, seconds first, such as '0 0 3 * * *'.")]
