"""Does a deep network memorize, generalize, or both?  The library behind the pipeline's stages.

Modules that the Snakefile imports (`config`, `experiment`, `jobs`, `code`, `registry`) stay free of torch,
pandas and matplotlib; the stages import what they need.
"""

import os

# Figures go to files. A notebook (Jupyter, Colab) hands its own backend on, which matplotlib refuses to be imported with here.
os.environ["MPLBACKEND"] = "agg"
