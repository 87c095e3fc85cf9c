# tinyworld with CUDA: the CUDA libraries come with PyTorch's wheels, the driver from the host (NVIDIA Container Toolkit).
#   docker build -t tinyworld .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" tinyworld train taehv_demo --data_root my_clips
FROM python:3.11-slim-bookworm

# torch.compile and Triton compile small programs while they run. Debian keeps only its newest package versions, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 tinyworld

WORKDIR /opt/tinyworld
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[deepspeed,fantasy,serve,onnx]'

# Give --user "$(id -u):$(id -g)" where you are not user 1000, to own what is written into the mounted folder.
USER 1000
WORKDIR /work
ENTRYPOINT ["tinyworld"]
CMD ["--help"]
