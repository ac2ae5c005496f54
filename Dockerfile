# netprobe as an image. What it promises, and how to build and pin it: docs/image.md.

# Any image with Python 3.11 or later and pip in it. Who makes images for others names it by its digest.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
# Through a virtual environment netprobe finds the base's interpreter, wherever the base keeps it.
COPY requirements.lock .
RUN python3 -m venv --without-pip /opt/netprobe \
    && rm -rf /opt/netprobe/bin/[Aa]ctivate* /opt/netprobe/include \
    && python3 -m pip --python /opt/netprobe/bin/python3 install --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes --requirement requirements.lock
COPY LICENSE /opt/netprobe/
COPY image .
COPY agent agent
# Nothing is compiled at run time: nothing can be kept there, and each start would do it again.
RUN install -m 755 netprobe /opt/netprobe/bin/ \
    && mv agent /opt/netprobe/lib/python3*/site-packages/ \
    && /opt/netprobe/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/netprobe/lib \
    && /opt/netprobe/bin/python3 -I precompile.py /compiled \
    && chmod -R a+rX /opt/netprobe /compiled

FROM ${BASE}
ARG REVISION=
LABEL org.opencontainers.image.title="netprobe" \
      org.opencontainers.image.description="Says from inside an Airflow worker pod why a task cannot reach what it needs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# No command is run in this stage: a base without a shell does as well.
COPY --from=build /compiled /
COPY --from=build /opt/netprobe /opt/netprobe
ENV PATH=/opt/netprobe/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    NETPROBE_CONFIG=/etc/netprobe
WORKDIR /
# A number, so that the kubelet can see that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 9733
STOPSIGNAL SIGTERM
ENTRYPOINT ["netprobe"]
CMD ["run", "--fail-open"]
