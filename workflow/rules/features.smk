# Layer feature dumps, one job per shard of a run's evaluations.
# needs: the run's weights, the data set's store, the run's labels
# makes: <run>/features/<shard>   embeddings (or, at the last step, every other probe point) of all images, float32
#        <run>/logits/<shard>     the network's outputs for the same images
# The folder of features is no output for Snakemake, nor temp(): a changed probe that misses them would then make this
# rule run again, and with it every other probe of the shard. The last probe to read them lets them go: features/dumps.py.


rule features:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        training=f"{RUN}/training.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
        checkpoints=ancient(f"{RUN}/checkpoints"),
    output:
        logits=directory(f"{RUN}/logits/{{shard}}"),
        manifest=f"{RUN}/features/{{shard}}.json",
        provenance=f"{RUN}/features/{{shard}}.provenance.json",
    log:
        f"{RESULTS}/logs/features/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{shard}}.log",
    wildcard_constraints:
        architecture=jobs.extracted(),
    # Before further trainings, so that what was trained first is finished first.
    priority: 5
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["train_threads"]
    resources:
        **GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        readers=jobs.readers,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        spec=jobs.told("features"),
    shell:
        "DNN_OR_KNN_GPUS={resources.gpu} python {resources.scripts:q}/features.py --spec {params.spec:q} --store {input.store:q}"
        " --labels {input.labels:q} --training {input.training:q} --output {output.manifest:q} --readers {resources.readers}"
        " --device {resources.device} --threads {threads} --log {log:q}"


# Features that were computed elsewhere, in the place of an extraction: the configuration's subjects without a network.
# needs: the files that the subject names, whose content stands in the specification; the labels, to compare with
# makes: what an extraction makes; without logits their folder is empty. The features stay, and are an output here


rule given_features:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
    output:
        features=directory(f"{RUN}/features/{{shard}}"),
        logits=directory(f"{RUN}/logits/{{shard}}"),
        manifest=f"{RUN}/features/{{shard}}.json",
        provenance=f"{RUN}/features/{{shard}}.provenance.json",
    log:
        f"{RESULTS}/logs/features/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}-{{shard}}.log",
    wildcard_constraints:
        architecture=jobs.given(),
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: f"{attempt}h",
    params:
        spec=jobs.told("given_features"),
    shell:
        "python {resources.scripts:q}/given_features.py --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"
