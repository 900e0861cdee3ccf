"""Figures and tables of runs and models."""
