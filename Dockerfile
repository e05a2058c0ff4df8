# onnxprune on CPUs, with everything but torch:
#
#     docker build -t onnxprune .
#     docker run --rm -v "$PWD:/work" onnxprune compress model.onnx --data samples.npz
FROM python:3.12-slim

COPY pyproject.toml setup.py README.md LICENSE /src/
COPY onnxprune /src/onnxprune
COPY passes /src/passes
COPY recipes /src/recipes
RUN pip install --no-cache-dir "/src[cpu,data,report]" && rm -rf /src

# Files that are written belong to whom the folder belongs to: docker run --user "$(id -u):$(id -g)"
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["onnxprune"]
CMD ["--help"]
