# Two stages: the first builds a virtual environment, the second holds that and nothing else.
FROM python:3.13-slim AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt requirements-build.txt ./
RUN python -m venv /opt/responder \
 && /opt/responder/bin/pip install --require-hashes -r requirements.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md ./
COPY responder responder
COPY migrations migrations
RUN /opt/build/bin/python -m hatchling build -t wheel -d dist \
 && /opt/responder/bin/pip install --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 65053 --user-group --no-create-home --home-dir /var/lib/responder responder \
 && install -d -m 0700 -o responder -g responder /var/lib/responder /run/responder
COPY --from=build /opt/responder /opt/responder
ENV PATH=/opt/responder/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    RUNTIME_DIRECTORY=/run/responder
USER responder
# The database, and the socket between the processes: with a read-only root file system these two stay writable.
VOLUME ["/var/lib/responder", "/run/responder"]
EXPOSE 53/udp 53/tcp 443/tcp
STOPSIGNAL SIGTERM
# The admin listener's /readyz proves the database and asks the nameserver over UDP and TCP. urllib would ask a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import http.client, sys; admin = http.client.HTTPConnection('127.0.0.1', 8054, timeout=4); \
admin.request('GET', '/readyz'); sys.exit(admin.getresponse().status != 200)"]
ENTRYPOINT ["responder"]
CMD ["serve"]
