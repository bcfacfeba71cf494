# Server and trainer for one NVIDIA GPU (the extra `gpu`). Targets: server, trainer.
# CUDA's libraries come with the wheels; the driver comes from the host (NVIDIA Container Toolkit).
FROM python:3.11-slim-bookworm AS dependencies
# Triton and torch.compile call a C compiler when the models start; bubblewrap is the sandbox of the task `code`.
# Pinned by the Debian release.
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -q -y --no-install-recommends bubblewrap gcc g++ libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home ramify \
 && install -d -o ramify -g ramify /run/secrets /var/lib/ramify/log /var/lib/ramify/cache /var/lib/ramify/weights /var/lib/ramify/training
ENV PATH=/opt/ramify/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY pyproject.toml docker/requirements_of.py /opt/ramify/
# vLLM's own pins decide nearly all versions; requirements/cpu.lock names a build without CUDA.
# hadolint ignore=DL3013
RUN python3 -m venv /opt/ramify \
 && python /opt/ramify/requirements_of.py /opt/ramify/pyproject.toml gpu train postgres objects >/opt/ramify/gpu.txt \
 && pip install -q -r /opt/ramify/gpu.txt hatchling

FROM dependencies AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY trainer trainer
COPY clients/python clients/python
RUN pip install -q --no-deps --no-build-isolation --no-warn-script-location --root /installed .

FROM dependencies AS server
COPY --from=source /installed /
WORKDIR /var/lib/ramify
USER 10001:10001
EXPOSE 8000
CMD ["ramify", "serve"]

FROM dependencies AS trainer
COPY --from=source /installed /
WORKDIR /var/lib/ramify
USER 10001:10001
EXPOSE 8002
CMD ["ramify-trainer", "run", "--config", "/etc/ramify/trainer.toml"]
