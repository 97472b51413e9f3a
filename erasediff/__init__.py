"""EraseDiff: make an image-generating diffusion model forget, and prove it before anything ships.

Nothing here needs Kubeflow. Start reading at :mod:`erasediff.steps.table`
(one module per step of the pipeline) and :mod:`erasediff.unlearn.methods.erasediff` (the algorithm).
"""

from erasediff.environment import disable_telemetry

__version__ = "0.1.0"

disable_telemetry()
