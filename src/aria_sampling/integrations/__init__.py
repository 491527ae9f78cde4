"""Glue for the trainers that people use, one short module a host; each imports its host, and nothing else does."""
