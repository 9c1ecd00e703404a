# Three images, each running as a user without rights:
#
#   docker build --target shepherd --tag shepherd .
#   docker build --target runner --tag shepherd-runner .
#   docker build --target runner-python --tag shepherd-runner-python .
#
# The first is the daemon; examples/docker/docker-compose-sandbox.yml shows what it is to be run with. The
# others are what models' images are built from: the second has the runner of commands (examples/docker/language
# is one such model), the third has that of Python besides (examples/docker/cxflow_example). `cargo xtask images`
# builds the first two from what this machine has, without internet.

# Where the programs are built, and what they run on: it must have a C library at least as new. Of the
# first, the certificates of public authorities are taken too.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim
# What models in Python run on. Its Python must be one that the package is for, and that the model's own
# packages are for: cxflow needs 3.11 or older.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /source
COPY . .
# Programs that were built already are in `programs` of the context.
RUN if [ ! -d programs ]; then \
        apt-get update && \
        apt-get install --yes --no-install-recommends cmake && \
        cargo build --locked --release --bins --package shepherd --package shepherd-runner-bin && \
        mkdir programs && \
        cp target/release/shepherd target/release/shepherd-runner programs/ && \
        rm -rf target; \
    fi

FROM ${BASE_IMAGE} AS runner
COPY --from=build /source/programs/shepherd-runner /usr/local/bin/
# A model's image adds its `config.yaml`, its `runner.yaml` and what they name here.
WORKDIR /model
# Without a shepherd that says where to listen, such as one over tcp: a container's own loopback interface
# can be reached from nowhere.
ENV SHEPHERD_LISTEN_HOST=0.0.0.0
EXPOSE 9999
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/shepherd-runner"]
CMD ["/model/config.yaml"]

FROM ${BASE_IMAGE} AS shepherd
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /source/programs/shepherd /usr/local/bin/
EXPOSE 5000
# Nobody's: files that it is to write must be its own. The engine's socket is its group's: see --group-add.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/shepherd"]
CMD ["-c", "/etc/shepherd/shepherd.yml"]

# Last: an engine without BuildKit builds every stage before the one that it is asked for.
FROM ${PYTHON_IMAGE} AS runner-python
COPY python/runner /tmp/runner
RUN pip install --no-cache-dir '/tmp/runner[yaml]' && rm -rf /tmp/runner
COPY --from=build /source/programs/shepherd-runner /usr/local/bin/
WORKDIR /model
# The image is read-only to it.
ENV SHEPHERD_LISTEN_HOST=0.0.0.0 PYTHONDONTWRITEBYTECODE=1
EXPOSE 9999
USER 65532:65532
# It hands over to shepherd-runner-py where the model's runner.yaml does not name a command.
ENTRYPOINT ["/usr/local/bin/shepherd-runner"]
CMD ["/model/config.yaml"]
