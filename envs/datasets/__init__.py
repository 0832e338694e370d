"""Logged play on disk: folders of Arrow streams, one file a column, read window by window."""

from envs.datasets.dataset import Dataset, Episodes
from envs.datasets.manifest import FieldType, Manifest, action_table
from envs.datasets.writer import DatasetWriter, ShardWriter

__all__ = ["Dataset", "DatasetWriter", "Episodes", "FieldType", "Manifest", "ShardWriter", "action_table"]
