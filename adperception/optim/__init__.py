"""Distributed optimisers on torch alone: strategies, graphs, triggers, local optimisers."""
