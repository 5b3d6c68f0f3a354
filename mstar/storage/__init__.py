"""Where rollouts, checkpoints and runs are kept.

Reading order: ``store`` (bytes under keys), ``keys`` (which keys), ``folder``, ``s3`` and ``memory`` (the stores),
``open`` (from a name to a store), ``manifest`` (what was committed), ``artifacts`` (writing and committing it),
``reading`` (reading it back, verified), ``tables`` (records in Parquet), ``tensors`` (headers of safetensors files),
``lease`` (who runs a run), ``probe`` (does a store keep its promises). ``local``, ``faults`` and ``s3_faults`` serve
the stores.
"""
