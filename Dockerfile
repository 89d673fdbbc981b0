# syntax=docker/dockerfile:1
# A small image with the command line and the server, for CPUs: docs/install.md.
ARG PYTHON=3.13

# A wheel from the sources: only this stage has a compiler.
FROM python:${PYTHON}-slim-bookworm AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /sources
COPY pyproject.toml CMakeLists.txt README.md LICENSE NOTICE ./
COPY native native
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# PyTorch first, in a layer of its own: it changes seldom. Its headers and its own tests are of no use here.
FROM python:${PYTHON}-slim-bookworm AS environment
ARG EXTRAS=web
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PYTHON=/opt/dacesr/bin/python
COPY constraints.txt /
RUN python -m venv --without-pip /opt/dacesr \
 && pip install --constraint /constraints.txt --index-url https://download.pytorch.org/whl/cpu torch \
 && rm -rf /opt/dacesr/lib/python*/site-packages/torch/include /opt/dacesr/lib/python*/site-packages/torch/test
COPY --from=wheel /wheels /wheels
RUN pip install --constraint /constraints.txt "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim-bookworm
COPY --from=environment /opt/dacesr /opt/dacesr
RUN useradd --create-home --uid 1000 dacesr \
 && install --directory --owner dacesr --group dacesr /work
ENV PATH=/opt/dacesr/bin:$PATH HF_HOME=/tmp/huggingface
USER 1000
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["dacesr"]
CMD ["--help"]
