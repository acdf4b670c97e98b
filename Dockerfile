# Two stages: the first builds a virtual environment, the second holds that and nothing else.
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
# Nameservers run as responder-dns where the supervisor may change their user; docs/operations.md has the way to allow that.
USER responder
# Where the service keeps the configuration of its last start, in case the next one cannot be used.
ENV STATE_DIRECTORY=/var/lib/responder
# The database: with a read-only root file system this stays writable.
VOLUME ["/var/lib/responder"]
EXPOSE 53/udp 53/tcp 443/tcp
STOPSIGNAL SIGTERM
# Wherever the configuration has the admin listener: its /readyz proves the database, and asks the nameserver over UDP
# and TCP. A configuration elsewhere than /etc/responder is named by RESPONDER_CONFIG, which this sees, too.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["responder", "serve", "--ready"]
ENTRYPOINT ["responder"]
CMD ["serve"]
