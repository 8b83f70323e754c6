# iqray on the official Ray image, for every node of a cluster and for the submitting machine.
#
#   docker build -t registry.example.com/iqray:0.1.0 .
#   docker build --build-arg WEIGHTS="brisque clipiqa cnniqa dbcnn musiq niqe" -t ... .
#
# Ray is the locked version. Its own image has the user `ray` (uid 1000), uv, and what `ray up` and
# KubeRay start. torch brings its CUDA 13 libraries by itself; the base of the same major version
# makes the container toolkit refuse a node whose driver is too old, instead of a crash later.
# Pin the base by digest as well, for builds that can be repeated:
#   docker buildx imagetools inspect rayproject/ray:2.60.0-py311-cu130
FROM rayproject/ray:2.60.0-py311-cu130

WORKDIR /home/ray/iqray

# The lock as constraints, not as requirements: it holds the developers' tools too, which have no
# place here. uv takes versions from it and checks every download against its hashes. Ray is there
# in the locked version already, with what its autoscaler needs.
COPY --chown=1000:100 pyproject.toml requirements.lock ./
RUN uv pip install --system --no-cache --compile-bytecode --require-hashes \
    --requirements pyproject.toml --constraints requirements.lock

COPY --chown=1000:100 README.md LICENSE ./
COPY --chown=1000:100 iqray iqray
COPY --chown=1000:100 jobs jobs
RUN uv pip install --system --no-cache --compile-bytecode --no-deps . \
    && python jobs/full_grid.py --help > /dev/null

# Metrics whose weights lie in the image, for clusters without internet; none unless asked for. A
# study then has `weights: {directory: /home/ray/weights}`.
ARG WEIGHTS=""
RUN if [ -n "$WEIGHTS" ]; then \
        python jobs/prefetch_weights.py --directory /home/ray/weights --metrics $WEIGHTS; \
    fi

# By number, so that Kubernetes can see that it is not root.
USER 1000
