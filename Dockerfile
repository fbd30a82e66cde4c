# Runs the demo in a container. From a git clone:
#   docker build -t coma-gen .
#   mkdir -p out && docker run --rm -it -v "$PWD/out:/out" coma-gen sh -c 'make demo && cp -r data/samples data/report /out'
# For a smaller image, use an index with CPU builds of PyTorch: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11.7-slim-bookworm AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 pianist
USER pianist
WORKDIR /home/pianist/coma-gen

FROM base AS demo
ARG PIP_EXTRA_INDEX_URL
COPY --chown=pianist . .
RUN make .venv/.installed
CMD ["make", "demo"]
