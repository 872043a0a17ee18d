# One image for all workers of the reference application, and for its backend; the command says which role it serves:
#   docker build --tag baton .
#   docker run baton start receptionist
#   docker run --entrypoint python baton -m backend serve --host 0.0.0.0
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# What the lock names, checked by hash; a layer of its own, because it changes less often than the code.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/baton \
 && /opt/baton/bin/python -m pip install --require-hashes --requirement requirements.lock \
 && python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes --requirement requirements-build.lock

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY coordination coordination
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /tmp/dist \
 && /opt/baton/bin/python -m pip install --no-deps --no-index /tmp/dist/*.whl

FROM python:${PYTHON_VERSION}-slim AS run
# A fixed number, so that `runAsNonRoot` can be checked without a look into the image.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin baton \
 && install --directory --owner=10001 --group=10001 /data
ENV PATH=/opt/baton/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
COPY --from=build /opt/baton /opt/baton
# `agents` is the import name of another package too: it is never installed, it runs from its folder.
WORKDIR /app
COPY config config
COPY agents agents
COPY backend backend
COPY LICENSE NOTICE ./
USER 10001:10001

# LiveKit's own health server, alive as long as the worker's loop answers.
EXPOSE 8081
# The worker's main process has to get the signal itself, alone: a signal to its group would end the calls at once.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "agents"]
CMD ["--help"]
