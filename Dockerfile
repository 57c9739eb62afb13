# The pipeline's environment from the same pins as `make setup`.
#   docker build -t dnn-or-knn .
#   docker run --rm -v "$PWD/results:/pipeline/results" dnn-or-knn --cores 2 --configfile config/demo.yaml
# With a GPU: docker run --gpus all --shm-size 2g …
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc git libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /pipeline
COPY envs/pipeline.txt envs/slurm.txt envs/constraints.txt envs/
RUN pip install --no-cache-dir --requirement envs/pipeline.txt --requirement envs/slurm.txt --constraint envs/constraints.txt
COPY . .
RUN python workflow/plugins/register.py
ENTRYPOINT ["snakemake"]
