# Measures: accuracy, P_SAME, D_KL, bootstrap replicates.
# needs: the outputs of the network and of all probes at every evaluation of a run
# makes: <run>/measures   one tidy table per run
#        measures/        one per experiment

MEASURES = f"{RESULTS}/measures"
# Where probabilities wait for their measures (`keep.probabilities`): else measures come after whatever training, extraction and probe
# is ready, and the probabilities of many runs lie on disk together.
MEASURES_FIRST = 15 if jobs.passing() else 0


rule measures:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        training=f"{RUN}/training.json",
        features=jobs.of_run("features/{shard}.json"),
        probes=jobs.of_run("probes/{probe}/{shard}.json"),
        history=ancient(f"{RUN}/history.csv"),
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        logits=ancient(jobs.of_run("logits/{shard}")),
        outputs=ancient(jobs.of_run("probes/{probe}/{shard}")),
    output:
        multiext(
            f"{RUN}/measures/",
            "measures.parquet",
            "measures.csv",
            "replicates.parquet",
            "measures.provenance.json",
        ),
        manifest=f"{RUN}/measures/measures.json",
    log:
        f"{RESULTS}/logs/measures/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}.log",
    # Where probabilities go with their measures: before further probes.
    priority: MEASURES_FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["probe_threads"]
    resources:
        scripts=SCRIPTS,
        gpu_model="",
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        spec=jobs.told("measures"),
    shell:
        "python {resources.scripts:q}/measures.py --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q}"
        " --training {input.training:q} --output {output.manifest:q} --threads {threads} --log {log:q}"


rule collect:
    input:
        manifests=jobs.of_runs("measures/measures.json"),
        tables=ancient(jobs.of_runs("measures/measures.parquet")),
        replicates=ancient(jobs.of_runs("measures/replicates.parquet")),
    output:
        multiext(
            f"{MEASURES}/",
            "measures.parquet",
            "measures.csv",
            "replicates.parquet",
            "runs.csv",
            "measures.provenance.json",
        ),
        manifest=f"{MEASURES}/measures.json",
    log:
        f"{RESULTS}/logs/measures/collect.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("collect"),
    shell:
        "python {resources.scripts:q}/collect.py --spec {params.spec:q} --measures {input.manifests:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"
