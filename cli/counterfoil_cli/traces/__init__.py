"""The embedded trace sink: OTLP in, Jaeger's query API and a waterfall page out."""
