# docker build -t mmdet_clim . && docker run --rm mmdet_clim infer --help
FROM python:3.11-slim-bookworm AS build

# Versions of Debian's own packages follow the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /mmdet_clim
COPY . .
# The compiler's place is the build: the second image has none.
RUN PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 make setup VENV=/opt/mmdet_clim PYTHON=python3.11 \
    && rm -rf /opt/mmdet_clim/.build

FROM python:3.11-slim-bookworm
COPY --from=build /opt/mmdet_clim /opt/mmdet_clim
ENV PATH=/opt/mmdet_clim/bin:$PATH
RUN useradd --create-home --uid 10001 clim
USER 10001
WORKDIR /home/clim
ENTRYPOINT ["clim"]
CMD ["--help"]
