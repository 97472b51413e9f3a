"""The pipeline, its compiler, and the runner that executes the compiled file on this machine."""
