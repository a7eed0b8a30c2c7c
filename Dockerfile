# A small image: the wheel is built in one stage, and only what runs is kept in the other.

FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY . /source
RUN pip wheel --no-cache-dir --wheel-dir /wheels /source

FROM python:3.11-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels corelane \
    && rm -r /wheels \
    && useradd --system --create-home --home-dir /var/lib/corelane corelane
COPY config/docker.toml /etc/corelane/corelane.toml
USER corelane
VOLUME /var/lib/corelane
EXPOSE 9092 9644
ENTRYPOINT ["corelane"]
CMD ["start", "--config", "/etc/corelane/corelane.toml"]
