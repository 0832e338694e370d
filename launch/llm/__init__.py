"""The vLLM server: its command line, its process, and who watches over it."""
