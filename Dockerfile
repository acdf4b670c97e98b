# Two stages: the first builds a virtual environment, and the second contains only that.
FROM python:3.13-slim AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt requirements-build.txt ./
RUN python -m venv /opt/responder \
 && /opt/responder/bin/pip install --require-hashes -r requirements.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY responder responder
COPY migrations migrations
RUN /opt/build/bin/python -m hatchling build -t wheel -d dist \
 && /opt/responder/bin/pip install --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 65053 --user-group --no-create-home --home-dir /var/lib/responder responder \
 && useradd --system --uid 65054 --user-group --no-create-home --home-dir /nonexistent responder-dns \
 && install -d -m 0700 -o responder -g responder /var/lib/responder
COPY --from=build /opt/responder /opt/responder
ENV PATH=/opt/responder/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Nameservers run as responder-dns if the supervisor may change their user; docs/operations.md describes how to allow that.
USER responder
# The service keeps the configuration of its last start here, in case the next one cannot be used.
ENV STATE_DIRECTORY=/var/lib/responder
# The database is here. This stays writable with a read-only root file system.
VOLUME ["/var/lib/responder"]
EXPOSE 53/udp 53/tcp 443/tcp
STOPSIGNAL SIGTERM
# Asks /readyz of the admin listener, which checks the database, and the nameserver over UDP and TCP. If the configuration
# is not in /etc/responder, set RESPONDER_CONFIG: this command reads it, too.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["responder", "serve", "--ready"]
ENTRYPOINT ["responder"]
CMD ["serve"]
