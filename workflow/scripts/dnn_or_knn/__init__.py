"""Does a deep network memorize, generalize, or both?  The library behind the pipeline's stages.

Modules that the Snakefile imports (`config`, `experiment`, `jobs`, `code`, `registry`) stay free of torch,
pandas and matplotlib; the stages import what they need.
"""
