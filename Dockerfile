# The base install: djpeg, depth, encode, decode, eval, fit, look, info. Build and use it so:
#     docker build -t vizcomp .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" vizcomp djpeg photos -o out
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /opt/vizcomp && /opt/vizcomp/bin/pip install --no-cache-dir /source -c /source/constraints.txt

FROM python:3.11-slim
COPY --from=build /opt/vizcomp /opt/vizcomp
ENV PATH=/opt/vizcomp/bin:$PATH VIZCOMP_CACHE=/tmp/vizcomp
WORKDIR /work
ENTRYPOINT ["vizcomp"]
