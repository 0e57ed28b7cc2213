# Tailchat Gate as an image: a virtual environment from the lock files, and nothing else.

# Where the request path is compiled, a base with a C compiler: python:3.13.
ARG BUILD_IMAGE=python:3.13-slim

FROM ${BUILD_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build
COPY requirements.lock requirements-build.lock ./

# Only wheels, only with the hashes written down: what is not in the lock file does not get in.
# Python compiles what it imports of the backend; most of it is mypy, which is hardly ever needed.
RUN python -m venv --without-pip /build/backend \
    && pip --python /build/backend/bin/python install \
        --only-binary :all: --no-compile --require-hashes -r requirements-build.lock \
    && python -m venv --without-pip /opt/tailchat-gate \
    && pip --python /opt/tailchat-gate/bin/python install \
        --only-binary :all: --no-compile --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY tailchat_gate ./tailchat_gate

# The one directory that the gate writes to; a new volume takes its owner from the image.
RUN mkdir /build/state && chmod 700 /build/state

# With true, the modules of the request path are compiled.
ARG HATCH_BUILD_HOOK_ENABLE_MYPYC=false

# Byte code is made here because the root file system of the running container is read-only.
# mypy, which compiles, reads the types of the packages that the gate imports.
RUN PYTHONPATH=$(echo /opt/tailchat-gate/lib/python*/site-packages) \
        pip --python /build/backend/bin/python wheel --no-deps --no-build-isolation --wheel-dir /build/wheels . \
    && pip --python /opt/tailchat-gate/bin/python install \
        --no-deps --no-index --no-compile /build/wheels/*.whl \
    && /opt/tailchat-gate/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/tailchat-gate/lib

FROM python:3.13-slim

LABEL org.opencontainers.image.title="Tailchat Gate" \
      org.opencontainers.image.description="Authenticating reverse proxy that puts any tool behind a Tailchat sign-in" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

ENV PATH=/opt/tailchat-gate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TAILCHAT_GATE_SERVER__LISTEN=0.0.0.0:4180

COPY --from=build /opt/tailchat-gate /opt/tailchat-gate
COPY --from=build --chown=10001:10001 /build/state /var/lib/tailchat-gate

# A number, so that a cluster can prove it is not root without reading /etc/passwd.
USER 10001:10001
WORKDIR /

VOLUME ["/var/lib/tailchat-gate"]
EXPOSE 4180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["tailchat-gate", "health"]
ENTRYPOINT ["tailchat-gate"]
CMD ["serve", "--config", "/etc/tailchat-gate/config.toml"]
