"""The container images of the components: one constant a role, pinned to the release."""

PIPELINE_CPU = "ghcr.io/erasediff/pipeline-cpu:0.1.0"
TRAIN_GPU = "ghcr.io/erasediff/train-gpu:0.1.0"
