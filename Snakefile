# DNN or k-NN: does a deep network memorize, generalize, or both?
# data sets -> training -> features -> probes -> measures -> figures -> claims; one file per stage in workflow/rules.
import os
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.19")

# Paths are taken from this file's folder, wherever Snakemake runs and whichever workflow uses this one as a module.
HOME = workflow.current_basedir.get_path_or_uri(secret_free=True)
if not os.path.isdir(HOME):
    raise WorkflowError(
        f"{HOME} is no folder: clone the repository and give its Snakefile's path"
    )

# Configuration: config.yaml is the paper; overlays in config/ change values.


configfile: f"{HOME}/config.yaml"


sys.path.insert(0, f"{HOME}/workflow/scripts")

from dnn_or_knn.plan import atlas as measuring
from dnn_or_knn.plan import startup
from dnn_or_knn.runtime.errors import UserError

try:
    jobs = startup.start(
        config,
        *startup.configured(workflow),
        # A module's configuration is not frozen: Snakemake leaves its `onstart` out.
        remote=not workflow.is_main_process and workflow.modifier.is_main_snakefile(),
        local=workflow.resource_settings.nodes is None,
    )
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = jobs.results
RUN = f"{RESULTS}/{{dataset}}/{{architecture}}/{{labels}}/seed{{seed}}"

# How jobs run. It reaches them as resources, since a changed parameter would make them stale.
SCRIPTS = startup.scripts()
DEVICE = jobs.config["device"]
BESIDE = jobs.config["jobs"]["probes_beside_training"]
# Which executor it is, Snakemake knows only after this file is read; of a dry run's, `--jobs` alone tells.
GPU, PROBE_GPU = startup.gpu(
    DEVICE,
    lambda: (
        workflow.resource_settings.nodes is None
        if workflow.dryrun
        else workflow.local_exec and not workflow.remote_exec
    ),
    BESIDE,
)
if workflow.resource_settings.nodes is None and startup.local_gpus():
    # One job more than they take: it starts, loads its libraries, and waits for the first place that another gives back.
    for resource, places in {"gpu": 1, "gpu_place": BESIDE}.items():
        if resource not in workflow.global_resources:
            workflow.register_resource(resource, startup.local_gpus() * places + 1)
ROOT = jobs.config["data"]["root"]
DOWNLOAD = "download" if jobs.config["data"]["download"] else "no-download"
SAVE_EVERY = str(jobs.config["jobs"]["save_every"])
FIGURE_NAMES = [*expand("figure{number}", number=range(1, 8)), "training"]
OVERLAYS = startup.overlays(workflow.configfiles)


wildcard_constraints:
    **jobs.wildcards(),


# Rules: one file per stage.


include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/probes.smk"
include: "workflow/rules/measures.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"


# Targets.


onstart:
    try:
        startup.freeze(jobs, workflow.dag.needrun_jobs())
    except UserError as error:
        raise WorkflowError(str(error))


for drawn in FIGURE_NAMES:

    # `snakemake figure6`, under any configuration.
    rule:
        name:
            drawn
        input:
            multiext(f"{FIGURES}/{drawn}", ".pdf", ".png"),
        localrule: True


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        expand(f"{RESULTS}/figures/{{name}}.pdf", name=FIGURE_NAMES),
        expand(
            f"{MEASURES}/{{measure}}.parquet",
            measure=measuring.switched_on(jobs.config),
        ),
        expand(f"{FIGURES}/{{name}}.pdf", name=measuring.figures(jobs.config)),
    localrule: True


startup.tell_targets(workflow.rules)
