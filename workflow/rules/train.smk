# Training, one job per run: (architecture, data set, labels, seed).
# needs: the data set's store, the run's labels
# makes: <run>/checkpoints     weights at every kept evaluation step, step 0 included
#        <run>/training.json   what was trained, digests of the weights; history.csv beside it


rule train:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
    output:
        checkpoints=directory(f"{RUN}/checkpoints"),
        manifest=f"{RUN}/training.json",
        history=f"{RUN}/history.csv",
        provenance=f"{RUN}/training.provenance.json",
    log:
        f"{RESULTS}/logs/train/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}.log",
    wildcard_constraints:
        architecture=jobs.trained(),
    conda:
        "../../envs/pipeline.yaml"
    threads: jobs.config["jobs"]["train_threads"]
    resources:
        **GPU,
        scripts=SCRIPTS,
        device=DEVICE,
        save_every=SAVE_EVERY,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{12 * attempt}h",
    params:
        spec=jobs.told("train"),
    shell:
        "DNN_OR_KNN_GPUS={resources.gpu} python {resources.scripts:q}/train.py --spec {params.spec:q} --store {input.store:q}"
        " --labels {input.labels:q} --output {output.manifest:q} --save-every {resources.save_every}"
        " --device {resources.device} --threads {threads} --log {log:q}"


# Weights that were trained elsewhere, in the place of a training: the configuration's subjects.
# needs: the files that the subject names; the data set's store, for the geometry
# makes: what a training makes


rule import_weights:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        weights=jobs.weights,
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
    output:
        checkpoints=directory(f"{RUN}/checkpoints"),
        manifest=f"{RUN}/training.json",
        history=f"{RUN}/history.csv",
        provenance=f"{RUN}/training.provenance.json",
    log:
        f"{RESULTS}/logs/import/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}.log",
    wildcard_constraints:
        architecture=jobs.imported(),
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: f"{attempt}h",
    params:
        spec=jobs.told("import_weights"),
    shell:
        "python {resources.scripts:q}/import_weights.py --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"


# Features alone, in the place of a training: the configuration's subjects without a network.
# needs: the files that the subject names, whose content stands in the specification; the labels, to compare with
# makes: what a training makes, without weights


rule import_features:
    input:
        store=f"{STORE}/store.json",
        labels=f"{LABELS}/labels.json",
        arrays=ancient(STORE_ARRAYS + LABEL_ARRAYS),
    output:
        manifest=f"{RUN}/training.json",
        history=f"{RUN}/history.csv",
        provenance=f"{RUN}/training.provenance.json",
    log:
        f"{RESULTS}/logs/import/{{dataset}}-{{architecture}}-{{labels}}-seed{{seed}}.log",
    wildcard_constraints:
        architecture=jobs.given(),
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("import_features"),
    shell:
        "python {resources.scripts:q}/import_features.py --spec {params.spec:q} --store {input.store:q} --labels {input.labels:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"
