# `vocoder serve` on a CPU. Not built in CI.
#   docker build -t flow-vocoder . && docker run -p 8000:8000 flow-vocoder
FROM python:3.12-slim
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY vocoder vocoder
RUN pip install --no-cache-dir ".[serve]" -c constraints.txt \
    && useradd --create-home vocoder
USER vocoder
# Numba keeps what it compiles where the user may write.
ENV NUMBA_CACHE_DIR=/home/vocoder/.numba
WORKDIR /home/vocoder
EXPOSE 8000
HEALTHCHECK --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["vocoder", "serve", "--host", "0.0.0.0", "--port", "8000"]
