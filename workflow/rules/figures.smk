# Figures 1 to 7 of the paper, and the training curves.
# needs: the experiment's measures; for figure 4 (g) the network's own list of layers; the runs' histories and manifests
# makes: figures/figure<n>.{pdf,png}   and the numbers that each panel shows, figure<n>.csv

FIGURES = f"{RESULTS}/figures"


rule figure:
    input:
        measures=f"{MEASURES}/measures.json",
        tables=ancient(multiext(f"{MEASURES}/", "measures.parquet", "runs.csv")),
        training=jobs.diagram,
    output:
        multiext(f"{FIGURES}/figure{{figure}}", ".pdf", ".csv", ".provenance.json"),
        picture=report(
            f"{FIGURES}/figure{{figure}}.png",
            category="Figures",
            caption="../report/captions/figure.rst",
            labels={"figure": "{figure}"},
        ),
        manifest=f"{FIGURES}/figure{{figure}}.json",
    log:
        f"{RESULTS}/logs/figures/figure{{figure}}.log",
    wildcard_constraints:
        figure="[1-7]",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("figure"),
    shell:
        "python {resources.scripts:q}/figure.py --spec {params.spec:q} --measures {input.measures:q} --training {input.training:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"


# A measure beside the paper's, where it is on.
rule beside_figure:
    input:
        measure=lambda wildcards: f"{MEASURES}/{measuring.figures(jobs.config)[wildcards.beside]}.json",
        stores=expand(f"{RESULTS}/{{name}}/store/store.json", name=jobs.stored()),
        table=ancient(
            lambda wildcards: f"{MEASURES}/{measuring.figures(jobs.config)[wildcards.beside]}.parquet"
        ),
        images=ancient(
            expand(
                f"{RESULTS}/{{name}}/store/{{array}}.npy",
                name=jobs.stored(),
                array=[
                    f"{split}_{what}"
                    for split in ("train", "test")
                    for what in ("images", "labels")
                ],
            )
        ),
    output:
        multiext(f"{FIGURES}/{{beside}}", ".pdf", ".csv", ".provenance.json"),
        picture=report(
            f"{FIGURES}/{{beside}}.png",
            category="Beside the paper",
            caption="../report/captions/figure.rst",
            labels={"figure": "{beside}"},
        ),
        manifest=f"{FIGURES}/{{beside}}.json",
    log:
        f"{RESULTS}/logs/figures/{{beside}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("beside_figure"),
    shell:
        "python {resources.scripts:q}/beside_figure.py --spec {params.spec:q} --measure {input.measure:q} --store {input.stores:q}"
        " --output {output.manifest:q} --threads {threads} --log {log:q}"


rule training_curves:
    input:
        training=jobs.of_runs("training.json"),
        history=ancient(jobs.of_runs("history.csv")),
    output:
        multiext(f"{FIGURES}/training", ".pdf", ".csv", ".provenance.json"),
        picture=report(
            f"{FIGURES}/training.png",
            category="Training",
            caption="../report/captions/training.rst",
        ),
        manifest=f"{FIGURES}/training.json",
    log:
        f"{RESULTS}/logs/figures/training.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("training_curves"),
    shell:
        "python {resources.scripts:q}/training_curves.py --spec {params.spec:q} --training {input.training:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"
