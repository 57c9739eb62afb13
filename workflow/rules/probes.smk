# Probe fits (k-NN, linear SVM, logistic regression), one job per probe and shard.
# A k-NN search can be cut by its queries into jobs of their own (`shards.queries`), whose lists the probe's job puts together.
# needs: a shard's features, the labels that the network was trained on; the weights where the features were released
# makes: <run>/probes/<probe>/<shard>        neighbours, or probabilities and coefficients, of every evaluation
#        <run>/probes/<probe>/<shard>.json   how far from the optimum each fit is


rule probe:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        # With the manifests of the pieces of a search, where there are any: a changed command would make what is there stale.
        features=jobs.probed,
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        pieces=ancient(jobs.searched("", ".provenance.json")),
    output:
        folder=directory(f"{RUN}/probes/{{probe}}/{{shard}}"),
        manifest=f"{RUN}/probes/{{probe}}/{{shard}}.json",
        provenance=f"{RUN}/probes/{{probe}}/{{shard}}.provenance.json",
    log:
        f"{RESULTS}/logs/probes/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{probe}}-{{shard}}.log",
    wildcard_constraints:
        probe=jobs.staying(),
    # Before further extractions, so that features wait on disk as briefly as possible.
    priority: 10
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["probe_threads"]
    resources:
        **PROBE_GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        share=BESIDE,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        spec=jobs.told("probe"),
        extraction=jobs.told("features"),
    shell:
        "DNN_OR_KNN_GPUS=$(({resources.gpu} + {resources.gpu_place})) python {resources.scripts:q}/probe.py --spec {params.spec:q}"
        " --store {input.store:q} --labels {input.labels:q} --features {input.features:q} --output {output.manifest:q}"
        " --extraction {params.extraction:q} --reader {wildcards.probe:q}"
        " --share-gpu {resources.share} --device {resources.device} --threads {threads} --log {log:q}"


# Where probabilities go once they are measured (`keep.probabilities`): every probe but k-NN. The manifest stays, so nothing becomes stale.
use rule probe as passing_probe with:
    output:
        folder=temp(directory(f"{RUN}/probes/{{probe}}/{{shard}}")),
        manifest=f"{RUN}/probes/{{probe}}/{{shard}}.json",
        provenance=f"{RUN}/probes/{{probe}}/{{shard}}.provenance.json",
    wildcard_constraints:
        probe=jobs.going(),


rule query_shard:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        features=f"{RUN}/features/{{shard}}.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
    output:
        folder=temp(directory(f"{RUN}/probes/{{probe}}/{{shard}}.{{piece}}")),
        manifest=temp(f"{RUN}/probes/{{probe}}/{{shard}}.{{piece}}.json"),
        provenance=temp(f"{RUN}/probes/{{probe}}/{{shard}}.{{piece}}.provenance.json"),
    log:
        f"{RESULTS}/logs/probes/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{probe}}-{{shard}}-{{piece}}.log",
    priority: 10
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["probe_threads"]
    resources:
        **PROBE_GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        share=BESIDE,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        spec=jobs.told("query_shard"),
        extraction=jobs.told("features"),
    # No --reader: the features wait until the probe has its result.
    shell:
        "DNN_OR_KNN_GPUS=$(({resources.gpu} + {resources.gpu_place})) python {resources.scripts:q}/probe.py --spec {params.spec:q}"
        " --store {input.store:q} --labels {input.labels:q} --features {input.features:q} --output {output.manifest:q}"
        " --extraction {params.extraction:q}"
        " --share-gpu {resources.share} --device {resources.device} --threads {threads} --log {log:q}"
