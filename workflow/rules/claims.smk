# The paper's claims, checked, and the page that shows everything.
# needs: the experiment's measures, all figures, the provenance of every stage
# makes: claims/claims.{json,csv,md,pdf,png}   a verdict for each of the nine claims
#        claims/later.{json,csv,md,pdf,png}    claims 10 to 12, which are later work, where their measures are on
#        claims/choices.{json,csv,md,pdf,png}  the verdicts again for each choice, if the configuration has any
#        report.html                           one page that opens from disk

CLAIMS = f"{RESULTS}/claims"


rule claims:
    input:
        measures=f"{MEASURES}/measures.json",
        tables=ancient(
            multiext(
                f"{MEASURES}/", "measures.parquet", "replicates.parquet", "runs.csv"
            )
        ),
    output:
        multiext(f"{CLAIMS}/claims", ".csv", ".md", ".pdf", ".png", ".provenance.json"),
        manifest=f"{CLAIMS}/claims.json",
    log:
        f"{RESULTS}/logs/claims/claims.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("claims"),
    shell:
        "python {resources.scripts:q}/claims.py --spec {params.spec:q} --measures {input.measures:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"


rule published:
    input:
        measures=f"{MEASURES}/measures.json",
        tables=ancient(multiext(f"{MEASURES}/", "measures.parquet", "runs.csv")),
    output:
        multiext(f"{CLAIMS}/published", ".csv", ".provenance.json"),
        manifest=f"{CLAIMS}/published.json",
    log:
        f"{RESULTS}/logs/claims/published.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("published"),
    shell:
        "python {resources.scripts:q}/published.py --spec {params.spec:q} --measures {input.measures:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"


rule later_claims:
    input:
        measures=f"{MEASURES}/measures.json",
        beside=expand(
            f"{MEASURES}/{{measure}}.json", measure=measuring.judged(jobs.config)
        ),
        tables=ancient(
            multiext(
                f"{MEASURES}/", "measures.parquet", "replicates.parquet", "runs.csv"
            )
            + expand(
                f"{MEASURES}/{{measure}}.parquet",
                measure=measuring.judged(jobs.config),
            )
        ),
    output:
        multiext(f"{CLAIMS}/later", ".csv", ".md", ".pdf", ".png", ".provenance.json"),
        manifest=f"{CLAIMS}/later.json",
    log:
        f"{RESULTS}/logs/claims/later.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("later_claims"),
    shell:
        "python {resources.scripts:q}/later_claims.py --spec {params.spec:q} --measures {input.measures:q}"
        " --beside {input.beside:q} --output {output.manifest:q} --threads {threads} --log {log:q}"


rule choices:
    input:
        measures=f"{MEASURES}/measures.json",
        tables=ancient(
            multiext(
                f"{MEASURES}/", "measures.parquet", "replicates.parquet", "runs.csv"
            )
        ),
    output:
        multiext(f"{CLAIMS}/choices", ".csv", ".md", ".pdf", ".png", ".provenance.json"),
        manifest=f"{CLAIMS}/choices.json",
    log:
        f"{RESULTS}/logs/claims/choices.log",
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
    params:
        spec=jobs.told("choices"),
    shell:
        "python {resources.scripts:q}/choices.py --spec {params.spec:q} --measures {input.measures:q} --output {output.manifest:q}"
        " --threads {threads} --log {log:q}"


rule report:
    input:
        claims=f"{CLAIMS}/claims.json",
        published=f"{CLAIMS}/published.json",
        choices=[f"{CLAIMS}/choices.json"] if jobs.config["choices"] else [],
        later=[f"{CLAIMS}/later.json"] if measuring.judged(jobs.config) else [],
        beside=expand(f"{FIGURES}/{{name}}.json", name=measuring.figures(jobs.config)),
        figures=expand(f"{FIGURES}/figure{{figure}}.json", figure=range(1, 8)),
        training=f"{FIGURES}/training.json",
        measures=f"{MEASURES}/measures.json",
        tables=ancient(multiext(f"{MEASURES}/", "measures.parquet", "runs.csv")),
        pictures=ancient(
            [
                *multiext(f"{CLAIMS}/claims", ".csv", ".pdf", ".png"),
                *expand(
                    f"{FIGURES}/{{name}}.{{kind}}",
                    name=FIGURE_NAMES,
                    kind=["csv", "pdf", "png"],
                ),
            ]
        ),
    output:
        page=report(
            f"{RESULTS}/report.html",
            category="The page",
            caption="../report/captions/report.rst",
        ),
        manifest=f"{RESULTS}/report.json",
        provenance=f"{RESULTS}/report.provenance.json",
    log:
        f"{RESULTS}/logs/claims/report.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        scripts=SCRIPTS,
        overlays=OVERLAYS,
    params:
        spec=jobs.told("report"),
    shell:
        "python {resources.scripts:q}/report.py --spec {params.spec:q} --output {output.manifest:q}"
        " --choices {input.choices:q} --later {input.later:q} --beside {input.beside:q} --overlays={resources.overlays:q} --threads {threads} --log {log:q}"
