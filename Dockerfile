# syntax=docker/dockerfile:1

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" \
    -o /out/execgate ./cmd/execgate \
    && mkdir -p /out/state/data

FROM gcr.io/distroless/static-debian12:nonroot
# The working directory belongs to nonroot (65532): the stores' default paths
# are below data/, relative to it. Mount a volume there.
COPY --from=build --chown=65532:65532 /out/state /var/lib/execgate
COPY --from=build /out/execgate /usr/local/bin/execgate
COPY deploy/container.yaml /etc/execgate/config.yaml
WORKDIR /var/lib/execgate
USER 65532:65532
VOLUME ["/var/lib/execgate/data"]
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/execgate", "healthcheck", "--config", "/etc/execgate/config.yaml"]
ENTRYPOINT ["/usr/local/bin/execgate"]
CMD ["serve", "--config", "/etc/execgate/config.yaml"]
