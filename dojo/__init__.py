"""The harness of the TinyTorch katas: it composes the framework, judges katas, and keeps track."""

__version__ = "0.1.0"
