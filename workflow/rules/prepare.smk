# Data set preparation.
# needs: the data set (bundled, downloaded, or an existing copy under data.root)
# makes: <dataset>/store                     images and labels as arrays, once per data set
#        <dataset>/labels/<labels>/seed<k>   which images a run is trained on, and with which labels

STORE = f"{RESULTS}/{{dataset}}/store"
LABELS = f"{RESULTS}/{{dataset}}/labels/{{labels}}/seed{{seed}}"
STORE_ARRAYS = [
    f"{STORE}/{split}_{what}.npy"
    for split in ("train", "test")
    for what in ("images", "labels")
]
LABEL_ARRAYS = [f"{LABELS}/{what}.npy" for what in ("indices", "labels")]


rule prepare:
    input:
        startup.forcing(jobs, workflow),
    output:
        arrays=STORE_ARRAYS,
        manifest=f"{STORE}/store.json",
        provenance=f"{STORE}/store.provenance.json",
    log:
        f"{RESULTS}/logs/prepare/{{dataset}}.log",
    # Nodes are often offline: what may be downloaded is prepared where Snakemake runs.
    localrule: jobs.config["data"]["download"]
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
        gpu_model="",
        root=ROOT,
        download=DOWNLOAD,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: f"{attempt}h",
    params:
        spec=jobs.told("prepare"),
    shell:
        "python {resources.scripts:q}/prepare.py --spec {params.spec:q} --root {resources.root:q} --{resources.download}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"


rule labels:
    input:
        store=f"{STORE}/store.json",
        arrays=ancient(STORE_ARRAYS),
    output:
        arrays=LABEL_ARRAYS,
        manifest=f"{LABELS}/labels.json",
        provenance=f"{LABELS}/labels.provenance.json",
    log:
        f"{RESULTS}/logs/labels/{{dataset}}-{{labels}}-seed{{seed}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("labels"),
    shell:
        "python {resources.scripts:q}/labels.py --spec {params.spec:q} --store {input.store:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"
