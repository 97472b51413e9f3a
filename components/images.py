"""The container images, pinned to the release: one constant a role. ``make images`` builds them under these names."""

PIPELINE_CPU = "ghcr.io/erasediff/pipeline-cpu:0.1.0"
TRAIN_GPU = "ghcr.io/erasediff/train-gpu:0.1.0"
SERVE = "ghcr.io/erasediff/serve:0.1.0"
