# The measures beside the paper's, each switched on by `measures.<name>`: docs/atlas.md.
# needs: what a run keeps: outputs of network and probes, features before they go, weights
# makes: <run>/measures/<measure>/<part>.parquet   one table a run, or a shard of its features
#        measures/<measure>.parquet                one an experiment

PART = f"{RUN}/measures/{{measure}}/{{part}}"


rule measure_outputs:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        training=f"{RUN}/training.json",
        features=jobs.reads("features"),
        probes=jobs.reads("probes"),
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        folders=ancient(jobs.reads("folders")),
    output:
        multiext(PART, ".parquet", ".provenance.json"),
        manifest=f"{PART}.json",
    log:
        f"{RESULTS}/logs/measures/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{measure}}-{{part}}.log",
    wildcard_constraints:
        measure=measuring.reading("outputs"),
    # Where probabilities go with their measures: before further probes.
    priority: MEASURES_FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["probe_threads"]
    resources:
        scripts=SCRIPTS,
        gpu_model="",
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{attempt}h",
    params:
        spec=jobs.told("measure"),
    shell:
        "python {resources.scripts:q}/measure.py --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q}"
        " --training {input.training:q} --inputs {input.features:q} {input.probes:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"


# One more reader of the features. A shard of hidden layers has that of the embedding beside it.
rule measure_features:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        training=f"{RUN}/training.json",
        features=jobs.reads("features"),
        probes=jobs.reads("probes"),
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        folders=ancient(jobs.reads("folders")),
    output:
        multiext(PART, ".parquet", ".provenance.json"),
        manifest=f"{PART}.json",
    log:
        f"{RESULTS}/logs/measures/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{measure}}-{{part}}.log",
    wildcard_constraints:
        measure=measuring.reading("features"),
    # With the probes, so that features wait on disk as briefly as possible.
    priority: 10
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["probe_threads"]
    resources:
        **PROBE_GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        spec=jobs.told("measure"),
        extraction=jobs.extractions,
    shell:
        "DNN_OR_KNN_GPUS=$(({resources.gpu} + {resources.gpu_place})) python {resources.scripts:q}/measure.py"
        " --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q} --training {input.training:q}"
        " --inputs {input.features:q} {input.probes:q} --features {input.features:q} --extraction {params.extraction:q}"
        " --reader {wildcards.measure:q}.{wildcards.part:q} --output {output.manifest:q}"
        " --device {resources.device} --threads {threads} --log {log:q}"


rule measure_weights:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        training=f"{RUN}/training.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        checkpoints=ancient(f"{RUN}/checkpoints"),
    output:
        multiext(PART, ".parquet", ".provenance.json"),
        manifest=f"{PART}.json",
    log:
        f"{RESULTS}/logs/measures/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{measure}}-{{part}}.log",
    wildcard_constraints:
        measure=measuring.reading("weights"),
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["train_threads"]
    resources:
        **GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{4 * attempt}h",
    params:
        spec=jobs.told("measure"),
    shell:
        "DNN_OR_KNN_GPUS={resources.gpu} python {resources.scripts:q}/measure.py --spec {params.spec:q} --store {input.store:q}"
        " --labels {input.labels:q} --training {input.training:q} --output {output.manifest:q}"
        " --device {resources.device} --threads {threads} --log {log:q}"


rule measure_table:
    input:
        manifests=jobs.parts_of("{part}.json"),
        tables=ancient(jobs.parts_of("{part}.parquet")),
    output:
        multiext(f"{MEASURES}/{{measure}}", ".parquet", ".provenance.json"),
        manifest=f"{MEASURES}/{{measure}}.json",
    log:
        f"{RESULTS}/logs/measures/{{measure}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("measure_table"),
    shell:
        "python {resources.scripts:q}/measure_table.py --spec {params.spec:q} --parts {input.manifests:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"
