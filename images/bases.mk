# The published images that ours are built on. A tag moves, so a release pins them: write @sha256:DIGEST behind the tag, as
# `skopeo inspect --format '{{.Digest}}' docker://IMAGE` or `docker buildx imagetools inspect IMAGE` prints it.
PYTHON_BASE ?= docker.io/library/python:3.11-slim-bookworm

# For the GPU. torch's wheels bring CUDA's libraries along and the node its driver, so this needs Python 3.11 and no CUDA of its own;
# an image that has both will do as well.
CUDA_BASE ?= $(PYTHON_BASE)
