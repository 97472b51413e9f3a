"""The steps of an erasure, one module each, in the order of the way of the data.

    check_prerequisites -> train_base -> version_forget_set -> erase -> evaluate -> gate
        -> export_onnx -> register -> roll_out -> promote;  record_outcome runs whatever happened

A step is a function of a :class:`~erasediff.records.workdir.Run`. It reads earlier records, writes one record, and does
nothing if that record is already there, made from the same things. Components, the command line and ``dvc repro`` all
call these functions and nothing else.
"""
