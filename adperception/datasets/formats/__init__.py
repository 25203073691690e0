"""Readers and writers of file formats; they know no dataset."""
