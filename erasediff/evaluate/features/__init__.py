"""What images are compared by: the detector's features, those of a pretrained model in a local folder, or Inception's.

Nothing here is ever downloaded. ``extractor.py`` says what an extractor is, ``opening.py`` makes the one that a config names.
"""
